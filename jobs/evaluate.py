"""Evaluate a checkpoint of a run: its loss, accuracy, accuracy for each class and confusion matrix.

    python -m jobs.evaluate RUN [flags]

RUN is the directory that jobs.train printed, or a run's name under --storage. The figures are also written to
evaluations/<split>-<step>.json in the run.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from blitz.data.plan import Plan, Split
from blitz.errors import UserError, require
from blitz.launch.launch import launch
from blitz.launch.scale import Scale
from blitz.metrics import Classification
from blitz.recipe import Recipe
from blitz.training.evaluation import EvaluateJob
from blitz.training.open_run import stored_recipe
from blitz.training.run_directory import RunDirectory
from jobs.command_line import parse, run

PROG = "python -m jobs.evaluate"


@dataclass(frozen=True)
class EvaluateSettings:
    """What `jobs.evaluate` is told."""

    checkpoint: Literal["best", "last"] | int = "best"
    """Which checkpoint: the best, the newest, or that of a step."""
    split: Split = "val"
    """Which rows."""
    data_root: str | None = None
    """Folder of the data, if it is not where the run found it."""
    storage: str = "runs"
    """Where runs lie, if RUN is a name."""
    scale: Scale = field(default_factory=Scale)


def main(words: list[str]) -> None:
    """Evaluate as the command line says."""
    if not words or words[0] in ("-h", "--help"):
        parse(EvaluateSettings(), ["--help"], prog=f"{PROG} RUN", description=__doc__ or "")
    settings = parse(EvaluateSettings(), words[1:], prog=f"{PROG} RUN", description=__doc__ or "")
    evaluate(words[0], settings)


def evaluate(name: str, settings: EvaluateSettings) -> dict[str, Any]:
    """Evaluate and print; the content of the evaluation's file.

    Raises:
        UserError: if there is no such run or checkpoint.
    """
