"""The progress bar of a terminal or a notebook."""

import sys
from importlib.util import find_spec
from typing import Any

from tqdm import tqdm

from blitz.outputs.metrics import format_metric


class ProgressBar:
    """Steps, rate, time left and the newest loss, in one line; silent where nobody looks at the output."""

    def __init__(self, *, first_step: int, total_steps: int) -> None:
        notebook = in_notebook()
        # None: off where the output is not a terminal, which that of a notebook is not.
        shown = False if notebook else None
        self._bar = _kind(notebook)(
            total=total_steps,
            initial=first_step,
            unit="step",
            disable=shown if total_steps else True,
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


def _kind(notebook: bool) -> Any:
    """A class of tqdm's: without ipywidgets its bar for notebooks would only warn."""
    if not notebook or find_spec("ipywidgets") is None:
        return tqdm
    from tqdm.notebook import tqdm as notebook_tqdm

    return notebook_tqdm


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, as Jupyter's, VS Code's or Colab's."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")
