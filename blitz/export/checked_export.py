"""Export a checkpoint, and compare the artifact with the model on real rows before it is written."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blitz.errors import UserError, first_line, require
from blitz.export.deployed import Deployed, deploy, real_rows, signature
from blitz.export.formats import (
    SUFFIXES,
    WRITERS,
    Format,
    Outputs,
    Runner,
    described_for,
    quantize_onnx,
    require_installed,
)
from blitz.outputs.metrics import Classification
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.training.model import checkpoint_model

_BATCHES = (1, 2, 3, 64)
"""Batch sizes for which an artifact must give the model's outputs."""
_MANY_ROWS = 1000
"""Rows on which a quantised artifact, which differs, is compared with the model."""


@dataclass(frozen=True)
class Exported:
    """An exported checkpoint, and how much it differs from the model."""

    data: bytes
    """The artifact."""
    signature: dict[str, Any]
    rows: int
    """The number of real rows on which it was compared with the model."""
    difference: float | None
    """The largest, as a share of the largest value in its column, or of 1 for probabilities; None for a state dict."""
    exact_bytes: int
    """Size before quantisation."""
    accuracy: tuple[float, float] | None
    """The accuracies of the model and of the quantised artifact, for a classifier."""


def export(
    recipe: Recipe, run: RunDirectory, step: int, format_: Format, *, quantize: bool, tolerance: float
) -> Exported:
    """Export a checkpoint as an artifact.

    Raises:
        UserError: if it cannot be made, or differs from the model by more than `tolerance`.
    """
    require_installed(format_)
    require(
        not quantize or format_ == "onnx",
        f"--quantize is for --format onnx: torch deprecates its own quantisation, which {format_} would need",
    )
    model = checkpoint_model(recipe, run, step)
    with tempfile.TemporaryDirectory(prefix="blitz-export-") as folder:
        path = Path(folder, f"artifact.{SUFFIXES[format_]}")
        if format_ == "state_dict":
            torch.save(model.state_dict(), path)
            return Exported(path.read_bytes(), {}, 0, None, path.stat().st_size, None)
        with _explain_failure(recipe, format_):
            return _made(recipe, model, path, format_, quantize=quantize, tolerance=tolerance)


def _made(
    recipe: Recipe, model: nn.Module, path: Path, format_: Format, *, quantize: bool, tolerance: float
) -> Exported:
    write, runner = WRITERS[format_]
    rows, count = real_rows(recipe, _MANY_ROWS if quantize else max(_BATCHES))
    deployed, columns = deploy(recipe, model, rows)
    with torch.no_grad():
        expected = deployed(*columns.values())
    described = described_for(format_, signature(deployed, columns, expected))
    write(deployed, columns, described, path)
    exact_bytes, accuracy = path.stat().st_size, None
    difference = _difference(runner(path, described), deployed, columns)
    # Written so that NaN fails, too.
    require(
        difference <= tolerance,
        f"the exported model differs from the model by {difference:.2g}, and --tolerance is {tolerance:g}: its "
        "forward pass may depend on chance, on the batch or on values that an export fixes; nothing was written",
    )
    if quantize:
        quantize_onnx(path)
        quantized = runner(path, described)
        difference = _difference(quantized, deployed, columns)
        accuracy = _accuracies(recipe, rows, expected, quantized(columns))
    return Exported(path.read_bytes(), described, count, difference, exact_bytes, accuracy)


@contextmanager
def _explain_failure(recipe: Recipe, format_: Format) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    # Exporters and runtimes raise errors of any type.
    except Exception as error:
        reason = first_line(error)
        raise UserError(
            f"recipe {recipe.name} cannot be exported as {format_} ({reason}); try another --format, or give the "
            "recipe a method `deployed` that can be traced"
        ) from error


@torch.no_grad()
def _difference(artifact: Runner, deployed: Deployed, columns: Mapping[str, Tensor]) -> float:
    """The largest difference over batches of several sizes; NaN if one is NaN."""
    parts = [{name: column[:size] for name, column in columns.items()} for size in _BATCHES]
    found = [_largest_difference(deployed(*part.values()), artifact(part)) for part in parts]
    return torch.stack(found).max().item()


def _largest_difference(expected: Outputs, given: Outputs) -> Tensor:
    """The largest difference in a column of outputs, as a share of its largest value, or of 1 for probabilities."""
    found = []
    for name, value in expected.items():
        if given[name].shape != value.shape or given[name].dtype != value.dtype:
            return torch.tensor(torch.inf, dtype=torch.float64)
        exact, kind = value.double(), value.dtype if value.is_floating_point() else torch.float64
        scale = exact.new_ones(()) if name == "probabilities" else exact.abs().amax(0)
        found.append(((given[name].double() - exact).abs() / scale.clamp(min=torch.finfo(kind).tiny)).max())
    return torch.stack(found).max()


def _accuracies(recipe: Recipe, rows: Mapping[str, Tensor], *outputs: Outputs) -> tuple[float, float] | None:
    metrics = recipe.metrics()
    if not isinstance(metrics, Classification) or "targets" not in rows:
        return None
    first, second = (metrics.compute(metrics.sums(each["probabilities"], rows))["accuracy"] for each in outputs)
    return first, second
