"""Example rows of an evaluation: the most confident mistakes, and some at random.

They are chosen on the device during the pass, by a score for each row, so that any number of workers chooses the same.
Their number and the size of pictures are bounded: a run's examples take some hundred kilobytes.
"""

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blitz.data.order import Rows
from blitz.outputs.metrics import Classification, Metrics, Regression
from blitz.randomness import Use, key_for, keys_for, uniforms
from blitz.recipe import Batch
from blitz.training.batches import laid_out
from blitz.training.model import Forward, forward
from blitz.training.world import World

SHOWN = 24
"""Example rows of each kind."""
_SAMPLED = 1000
"""Rows whose predicted and true numbers are kept, for a chart of them all."""
_NARROW = 64
"""A column with at most so many numbers a row is kept for each of those."""
_SIDE, _LOSSLESS_SIDE = 128, 64
"""In pixels: the largest picture, and the largest that is stored as PNG rather than JPEG."""
_OUTPUTS, ROW = "_outputs", "_row"


class Examples:
    """Chooses example rows from one evaluation pass."""

    def __init__(self, forward: Forward, world: World) -> None:
        recipe = forward.recipe
        self._recipe, self._forward, self._world = recipe, forward, world
        self._metrics = recipe.metrics()
        self._key = key_for(Use.EXAMPLES, recipe.seed)
        self._kept = {"mistakes": TopRows(SHOWN), "random": TopRows(SHOWN)}
        if isinstance(self._metrics, Regression):
            self._kept["sample"] = TopRows(_SAMPLED)

    def add(self, fetched: Batch, rows: Rows, outputs: Any, losses: Tensor, batch: Batch) -> None:
        """Consider some rows: fetched columns, row numbers, and outputs and losses of the preprocessed `batch`."""
        columns = {**fetched, ROW: torch.from_numpy(rows).to(losses.device)}
        if isinstance(outputs, Tensor):
            columns[_OUTPUTS] = outputs
        by_chance = torch.from_numpy(uniforms(keys_for(self._key, rows.astype(np.uint64)), 1)[:, 0]).to(losses.device)
        self._kept["mistakes"].add(mistake_score(self._metrics, outputs, losses, batch), columns)
        self._kept["random"].add(by_chance, columns)
        if "sample" in self._kept and isinstance(outputs, Tensor) and outputs[0].numel() <= _NARROW:
            # After preprocessing, which could not be repeated without the wide columns.
            numbers = {**batch, ROW: columns[ROW], _OUTPUTS: outputs}
            narrow = {name: column for name, column in numbers.items() if column[0].numel() <= _NARROW}
            self._kept["sample"].add(by_chance, narrow)

    @torch.no_grad()
    def found(self) -> dict[str, list[dict[str, Any]]]:
        """`mistakes`, the most confident first, `random`, and for regression a larger `sample` without pictures.

        The model must be in evaluation mode, and every rank must call this.
        """
        return {kind: self._over_all_ranks(kept, with_pictures=kind != "sample") for kind, kept in self._kept.items()}

    def _over_all_ranks(self, kept: "TopRows", *, with_pictures: bool) -> list[dict[str, Any]]:
        mine = self._shown(kept, with_pictures=with_pictures)
        lines = self._world.gather([json.dumps(pair) for pair in mine])
        best = sorted(map(json.loads, lines), key=lambda pair: (-pair[0], pair[1]["row"]))[: kept.count]
        return [example for _, example in best]

    def _shown(self, kept: "TopRows", *, with_pictures: bool) -> list[tuple[float, dict[str, Any]]]:
        """Scores and examples of this rank's rows."""
        scores, columns = kept.best()
        if not len(scores):
            return []
        recipe, rows, outputs = self._recipe, columns.pop(ROW).tolist(), columns.pop(_OUTPUTS, None)
        batch = laid_out(recipe, recipe.preprocess(columns)) if with_pictures else columns
        if outputs is None:
            if self._world.sharded:
                # Ranks have rows of their own number, and a sharded model computes on all ranks or on none.
                return []
            outputs = forward(self._forward, batch, self._world.device)
        examples = recipe.examples(outputs, batch)
        pictures = recipe.pictures(columns) if with_pictures else None
        drawn = [{}] * len(rows) if pictures is None else [{"picture": picture_uri(one)} for one in pictures.cpu()]
        shown = [
            {"row": row, **example, **picture} for row, example, picture in zip(rows, examples, drawn, strict=False)
        ]
        return list(zip(scores.tolist(), shown, strict=False))


class TopRows:
    """The rows with the highest scores so far, and their columns."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._scores: Tensor | None = None
        self._columns: dict[str, Tensor] = {}

    def add(self, scores: Tensor, columns: Mapping[str, Tensor]) -> None:
        """Add rows with their scores, (rows,); -inf for rows that do not count."""
        scores, columns = self._top(scores.double(), columns)
        if self._scores is not None:
            scores = torch.cat([self._scores, scores])
            columns = {name: torch.cat([self._columns[name], column]) for name, column in columns.items()}
            scores, columns = self._top(scores, columns)
        self._scores, self._columns = scores, dict(columns)

    def _top(self, scores: Tensor, columns: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        # Among equal scores the lowest rows win, so that any number of workers keeps the same.
        by_row = columns[ROW].argsort()
        best = by_row[scores[by_row].argsort(descending=True, stable=True)[: self.count]]
        return scores[best], {name: column[best] for name, column in columns.items()}

    def best(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores, the highest first, and columns of those that count."""
        if self._scores is None:
            return torch.empty(0), {}
        count = int(self._scores.isfinite().sum())
        return self._scores[:count], {name: column[:count] for name, column in self._columns.items()}


def mistake_score(metrics: Metrics, outputs: Any, losses: Tensor, batch: Batch) -> Tensor:
    """How bad each row's mistake is: for classes the confidence in a wrong class, else the loss."""
    if isinstance(metrics, Classification):
        scores: Tensor = outputs
        confidence, predicted = scores.float().softmax(1).max(1)
        return confidence.where((predicted != batch["targets"]) & confidence.isfinite(), -torch.inf)
    return losses.where(losses.isfinite(), -torch.inf)


def picture_uri(picture: Tensor) -> str:
    """A `data:` URI of a small copy of uint8 pixels of shape (1 or 3, height, width)."""
    from PIL import Image

    pixels = picture.permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((_SIDE, _SIDE))
    kind = "png" if max(image.size) <= _LOSSLESS_SIDE else "jpeg"
    data = io.BytesIO()
    image.save(data, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
