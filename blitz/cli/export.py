"""Export a checkpoint of a run as one file that needs nothing of this project.

    python -m jobs.export RUN [--format torch_export|onnx|torchscript|state_dict] [flags]

RUN is the run directory that jobs.train printed, a path or a URI; a name alone is looked for in runs/. The artifact
holds weights and preprocessing, takes batches of any size, and has been held against the model on real rows. state_dict
is the weights alone, for `load_state_dict`. torchscript is for what still needs it: torch deprecates it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from blitz.cli.stored_run import chosen_checkpoint, parse_for_run
from blitz.errors import StorageError, UserError, require
from blitz.export.export import Exported, export
from blitz.export.formats import SUFFIXES, Format
from blitz.recipe import Recipe
from blitz.runs.directory import RunDirectory
from blitz.storage import exists, folder_of, is_folder, name_of

PROG = "python -m jobs.export"


@dataclass(frozen=True)
class ExportSettings:
    """What `jobs.export` is told. The recipe is the run's; its data may lie elsewhere by now."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    format: Format = "torch_export"
    """torch_export for torch 2, in Python or compiled ahead of time; onnx for ONNX Runtime and others; torchscript
    where an old runtime asks for it; state_dict for `load_state_dict`."""
    quantize: bool = False
    """onnx: weights as 8-bit integers: a smaller file. What it costs is stated, and --tolerance is held against the
    artifact before."""
    checkpoint: Literal["best", "last"] | int = "best"
    """Which checkpoint: the best, the newest, or that of a step."""
    output: str | None = None
    """Where the artifact goes; by default into `export/` of the run."""
    overwrite: bool = False
    """Write the artifact anew where it is there already."""
    tolerance: float = 1e-4
    """The largest difference from the model on real rows, as a share of the largest value in a column of outputs (of
    probabilities, of 1); more is refused."""


def main(words: list[str]) -> None:
    """Export as the command line says."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nFlags: those of `{PROG} RUN --help`, which depend on the run's recipe.")
        return
    require(bool(words) and not words[0].startswith("-"), f"name a run first: {PROG} RUN [flags]")
    directory, settings = parse_for_run(ExportSettings, words, prog=PROG, description=__doc__ or "")
    require(settings.tolerance > 0, f"--tolerance is {settings.tolerance}; it must be above 0")
    step = chosen_checkpoint(directory, settings.checkpoint)
    path = settings.output or _default_place(directory, settings, step)
    require(not is_folder(path), f"--output: {path} is a folder; name a file to write")
    require(settings.overwrite or not exists(path), f"{path} is there already; name another --output, or --overwrite")
    # What lies in the run may lead out of it; what its user names may not.
    folder = RunDirectory.of(folder_of(path)) if settings.output else directory.part("export")
    with _another_place(path):
        # Before minutes are spent on it.
        folder.probe()
    made = export(
        settings.recipe, directory, step, settings.format, quantize=settings.quantize, tolerance=settings.tolerance
    )
    with _another_place(path):
        folder.write(name_of(path), made.data)
    print(f"step {step}: {path}")
    _print(made, settings)


@contextmanager
def _another_place(path: str) -> Iterator[None]:
    """Where the artifact cannot be written, the flag for another place is named."""
    try:
        yield
    except StorageError as error:
        why = error.reason or error
        raise UserError(f"--output: {path} cannot be written ({why}); name another file") from error


def _default_place(directory: RunDirectory, settings: ExportSettings, step: int) -> str:
    quantized = ".int8" if settings.quantize else ""
    name = f"{settings.recipe.name}-{step}{quantized}.{SUFFIXES[settings.format]}"
    return RunDirectory.of(directory.uri, f"export/{name}").uri


def _print(made: Exported, settings: ExportSettings) -> None:
    if settings.format == "state_dict":
        print(f"{len(made.data):,} bytes: model.load_state_dict(torch.load(FILE, weights_only=True))")
        return
    for what in ("inputs", "outputs"):
        for name, each in made.signature[what].items():
            print(f"{what.removesuffix('s'):7} {name:14} {each['dtype']} ({', '.join(map(str, each['shape']))})")
    print(f"largest difference from the model on {made.rows} real rows: {made.difference:.2g}")
    if settings.quantize:
        print(f"{made.exact_bytes:,} bytes before quantisation, {len(made.data):,} after")
        if made.accuracy:
            print(f"accuracy on these rows: {made.accuracy[0]:.4f} before, {made.accuracy[1]:.4f} after")
    if settings.format == "torchscript":
        print("torch deprecates TorchScript; where torch 2 will run it, --format torch_export is what is kept")
