"""Command lines that name an existing run."""

from typing import Protocol, TypeVar

from blitz.cli.command_line import parse
from blitz.errors import require
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import stored_recipe
from blitz.settings import differences


class _Settings(Protocol):
    def __init__(self, recipe: Recipe) -> None: ...

    @property
    def recipe(self) -> Recipe: ...


Settings = TypeVar("Settings", bound=_Settings)


def parse_for_run(
    kind: type[Settings], words: list[str], *, positions: int = 1, prog: str, description: str
) -> tuple[RunDirectory, Settings]:
    """The run that the first word names, and settings from the words after the first `positions`.

    The recipe is the run's: flags may only change what may change between two starts of a run.

    Raises:
        UserError: if there is no such run, or a flag is not understood or not for such a run.
    """
    directory = RunDirectory.find(words[0])
    stored = stored_recipe(directory)
    settings = parse(
        kind(stored), words[positions:], prog=" ".join([prog, *words[:positions]]), description=description
    )
    changed = differences(stored, settings.recipe)
    require(not changed, f"{directory} was trained with other settings: {', '.join(changed)}")
    return directory, settings
