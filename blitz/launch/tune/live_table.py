"""The progress of a sweep: a line for each trial that ends, and in a terminal a live table below."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from blitz.launch.tune.sweep import Sweep
from blitz.outputs.metrics import format_metric
from blitz.training.display import Silence

if TYPE_CHECKING:
    from rich.table import Table

_ROWS = 12


class Lines(Silence):
    """Prints a sweep's lines."""

    def line(self, text: str) -> None:
        """Print a line; rich puts it above the live table, if there is one."""
        print(text, flush=True)


@contextmanager
def live_table(sweep: Sweep) -> Iterator[None]:
    """Within this context, a terminal shows the best trials, redrawn four times a second."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not (console.is_terminal and sys.stdout.isatty()):
        yield
        return
    with Live(get_renderable=lambda: table(sweep), console=console, refresh_per_second=4):
        yield


def table(sweep: Sweep) -> "Table":
    """The current state of the sweep."""
    from rich import box
    from rich.table import Table

    trials = list(sweep.trials.values())
    states = Counter(trial.state for trial in trials)
    title = f"{sum(trial.ended for trial in trials)} of {sweep.total} trials"
    title = ", ".join([title, *(f"{count} {state}" for state, count in states.items())])
    # Narrow, so that four settings fit into 80 columns.
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    names = sweep.directory.names
    drawn.add_column("trial", justify="right")
    for heading in _brief_names(names):
        drawn.add_column(heading)
    for heading in ("state", "step", f"best {sweep.goal.metric}"):
        drawn.add_column(heading, justify="right")
    for trial in sorted(trials, key=sweep.rank)[:_ROWS]:
        best = "" if trial.best is None else format_metric(trial.best)
        values = [_brief(trial.settings, name) for name in names]
        drawn.add_row(str(trial.number), *values, trial.state, str(trial.step), best)
    return drawn


def _brief_names(names: Sequence[str]) -> list[str]:
    """The last part of each name, where it is unique."""
    ends = Counter(name.rpartition(".")[2] for name in names)
    return [end if ends[end := name.rpartition(".")[2]] == 1 else name for name in names]


def _brief(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name, "")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
