"""Export a checkpoint of a run as one file that does not need blitz.

    blitz export RUN [--format torch_export|onnx|torchscript|state_dict] [flags]

RUN is the run directory that blitz train printed, a path or a URI; a name alone is looked for in runs/. The artifact
holds weights and preprocessing, takes batches of any size, and has been compared with the model on real rows.
state_dict is the weights alone, for `load_state_dict`. torchscript is for old runtimes: torch deprecates it.
"""

from blitz.api.export_run import ExportSettings, export_checkpoint
from blitz.cli.stored_run import parse_for_run
from blitz.errors import require
from blitz.export.checked_export import Exported

PROG = "blitz export"


def main(words: list[str]) -> None:
    """The command `export`."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nFlags: those of `{PROG} RUN --help`, which depend on the run's recipe.")
        return
    require(bool(words) and not words[0].startswith("-"), f"name a run first: {PROG} RUN [flags]")
    directory, settings = parse_for_run(ExportSettings, words, prog=PROG, description=__doc__ or "")
    made = export_checkpoint(directory, settings)
    print(f"step {made.step}: {made.path}")
    _print(made.artifact, settings)


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
        print("torch deprecates TorchScript; for torch 2 use --format torch_export")
