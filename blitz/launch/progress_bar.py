"""The progress bar of a terminal."""

from tqdm import tqdm

from blitz.outputs.metrics import format_metric


class ProgressBar:
    """Steps, rate, time left and the newest loss, in one line; silent where the output is no terminal."""

    def __init__(self, *, first_step: int, total_steps: int) -> None:
        # None: off where the output is not a terminal.
        self._bar = tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            disable=None if total_steps else True,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def step(self, number: int) -> None:
        """Show that `number` steps are done."""
        self._bar.update(number - self._bar.n)

    def loss(self, value: float) -> None:
        """Show the newest mean training loss."""
        self._bar.set_postfix_str(f"loss {format_metric(value)}", refresh=False)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.write(text)
