"""Find what would keep a run from starting, and how to mend it.

    blitz doctor RECIPE [flags]

The flags are those of blitz train. Each finding is one line; leaves with exit code 2 if one is an error.
"""

import os
import sys
from typing import NoReturn

from blitz.api.train_run import TrainSettings
from blitz.cli.train import read_settings
from blitz.data.plan import Datasets
from blitz.errors import require
from blitz.launch.doctor.examine import examine
from blitz.launch.placement import Placement
from blitz.recipes import all_recipe_names

PROG = "blitz doctor"


def main(words: list[str]) -> None:
    """The command `doctor`."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nRecipes: {', '.join(all_recipe_names())}")
        return
    doctor(read_settings(words, prog=PROG))


def doctor(settings: TrainSettings) -> None:
    """Print the findings.

    Raises:
        UserError: if a run with these settings cannot start.
    """

    def open_datasets() -> Datasets:
        recipe = settings.recipe.fitted()
        return {"train": recipe.dataset("train"), "val": recipe.dataset("val")}

    errors = 0
    for finding in examine(
        Placement(settings.scale), settings.storage, open_datasets, sources=settings.recipe.sources()
    ):
        print(finding, flush=True)
        errors += finding.level == "error"
    require(not errors, f"{errors} of these {'keep' if errors > 1 else 'keeps'} the run from starting")


def exit_at_once(code: int) -> NoReturn:
    """Exit without waiting for a storage client that does not answer, for which Python would wait minutes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
