"""Exporting a checkpoint of a run, for the command line and for Python."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import tyro

from blitz.api.evaluate_run import warn
from blitz.errors import StorageError, UserError, require
from blitz.export.checked_export import Exported, export
from blitz.export.formats import SUFFIXES, Format
from blitz.recipe import Recipe
from blitz.run_files.checkpoint_files import Which
from blitz.run_files.directory import RunDirectory
from blitz.run_files.folder import Directory
from blitz.storage import exists, folder_of, is_folder, name_of


@dataclass(frozen=True)
class ExportSettings:
    """The settings of an export. The recipe is the run's; its data may have moved."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    format: Format = "torch_export"
    """torch_export for torch 2, in Python or compiled ahead of time; onnx for ONNX Runtime and others; torchscript
    for old runtimes that need it; state_dict for `load_state_dict`."""
    quantize: bool = False
    """onnx: weights as 8-bit integers: a smaller file. The cost in accuracy is printed; --tolerance applies to the
    artifact before quantisation."""
    checkpoint: Which = "best"
    """Which checkpoint: the best, the newest, or that of a step."""
    output: str | None = None
    """The file to write; by default one in `export/` of the run."""
    overwrite: bool = False
    """Replace the artifact if it exists."""
    tolerance: float = 1e-4
    """The largest difference from the model on real rows, as a share of the largest value in a column of outputs (of
    probabilities, of 1); more is refused."""


@dataclass(frozen=True)
class ExportedFile:
    """An artifact, and where it was written."""

    path: str
    step: int
    artifact: Exported


def export_checkpoint(directory: RunDirectory, settings: ExportSettings) -> ExportedFile:
    """Export a checkpoint.

    Raises:
        UserError: if there is no such checkpoint, if the artifact cannot be written, or if its outputs differ
            from the model's.
    """
    require(settings.tolerance > 0, f"--tolerance is {settings.tolerance}; it must be above 0")
    step = directory.checkpoint_step(settings.checkpoint, report=warn)
    path = settings.output or _default_path(directory, settings, step)
    require(not is_folder(path), f"--output: {path} is a folder; name a file to write")
    require(settings.overwrite or not exists(path), f"{path} exists already; name another --output, or add --overwrite")
    # Links in the run must not lead out of it; a path that the user gives may.
    folder = Directory.of(folder_of(path)) if settings.output else directory.part("export")
    with _naming_the_flag(path):
        # Before minutes are spent on the export.
        folder.probe()
    made = export(
        settings.recipe, directory, step, settings.format, quantize=settings.quantize, tolerance=settings.tolerance
    )
    with _naming_the_flag(path):
        folder.write(name_of(path), made.data)
    return ExportedFile(path, step, made)


@contextmanager
def _naming_the_flag(path: str) -> Iterator[None]:
    """If the artifact cannot be written, raise an error that names --output."""
    try:
        yield
    except StorageError as error:
        why = error.reason or error
        raise UserError(f"--output: {path} cannot be written ({why}); name another file") from error


def _default_path(directory: RunDirectory, settings: ExportSettings, step: int) -> str:
    quantized = ".int8" if settings.quantize else ""
    name = f"{settings.recipe.name}-{step}{quantized}.{SUFFIXES[settings.format]}"
    return directory.part(f"export/{name}").uri
