"""What the columns of a table hold, how each relates to the target, and how two parts of its rows differ.

All but the statistics of whole columns is computed from a sample of bounded size; all training rows are looked
at for rows that are nearly those of the other part.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc

from blitz.data.csv.quantiles import sample_of
from blitz.data.csv.reading.columns import ColumnReport
from blitz.data.csv.reading.index import CsvIndex
from blitz.data.csv.reading.label_conflicts import text_hashes
from blitz.data.csv.reading.layout import LINE
from blitz.data.csv.reading.statistics import kept_batches
from blitz.data.csv.source import Mask
from blitz.randomness import mix64

MOST_COLUMNS = 200
"""Columns that are looked at; the target is one of them in any case."""
LEAK = 0.9
"""A column that alone explains this share of the target is one that would not be known, or its copy."""

_BARS = 20
_MOST_BINS = 100
_ROWS_A_BIN = 50
_EXAMPLES = 5
_DRAWS = 50
_DEVIATIONS = 4
_MOST_PAIRS = 10
_MISSING, _OTHER = "missing", "other"

_Cells = npt.NDArray[Any]
_Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Rows of an index."""

    index: CsvIndex
    kept: Mask


@dataclass(frozen=True)
class ColumnProfile:
    """A column."""

    report: ColumnReport
    examples: tuple[str, ...]
    bins: tuple[str, ...]
    """The bars of its histogram: ranges of numbers or the most frequent values, others, and missing ones."""
    shares: tuple[tuple[float, ...], ...]
    """The share of each bin, in training rows and, if there are any, in the others."""
    targets: tuple[float | None, ...]
    """In each bin the mean of the target, or the share of its last class; none if there is no target of that kind."""
    explained: float | None
    """The share of the target's entropy, or variance, that this column alone explains in rows not fitted on."""
    drift: float | None
    """How far the two parts differ: the total variation distance, from 0 to 1."""
    by_chance: float
    """What would still be chance."""

    @property
    def is_leak(self) -> bool:
        """Whether it alone predicts the target."""
        return self.explained is not None and self.explained >= LEAK

    @property
    def drifts(self) -> bool:
        """Whether the parts differ by more than chance."""
        return self.drift is not None and self.drift > self.by_chance


@dataclass(frozen=True)
class TableProfile:
    """A table."""

    index: CsvIndex
    target: str | None
    target_of_bins: str
    """What `targets` of the columns are."""
    rows: tuple[int, ...]
    """The rows of each part."""
    sampled: tuple[int, ...]
    columns: tuple[ColumnProfile, ...]
    duplicates: int
    """Sampled rows of the second part that are nearly in the first."""
    pairs: tuple[tuple[str, str], ...]
    """Some of them, each with the training row."""


def profile_of(train: Part, other: Part | None, target: str | None, seed: int) -> TableProfile:
    """The profile of training rows and, beside them, of others that are evaluated on."""
    reports = [report for report in train.index.columns if report.name != target][: MOST_COLUMNS - 1]
    reports += [train.index.column(target)] if target is not None else []
    names = [report.name for report in reports]
    features = [report.name for report in reports if report.name != target and not report.numbers_rows]
    hashes = _Hashes(features) if other is not None else None
    others = None if other is None else _sampled(other, names, seed, hashes)
    if hashes is not None:
        hashes.is_sought = True
    cells = _sampled(train, names, seed, hashes)
    learned = None if target is None else _learned(cells[target], train.index.column(target))
    parts = [part for part in (train, other) if part is not None]
    samples = [cells] if others is None else [cells, others]
    return TableProfile(
        train.index,
        target,
        "" if learned is None else learned.name,
        tuple(int(part.kept.sum()) for part in parts),
        tuple(len(next(iter(sample.values()))) for sample in samples),
        tuple(
            _column(report, [sample[report.name] for sample in samples], None if report.name == target else learned)
            for report in reports
        ),
        0 if hashes is None else hashes.found,
        () if hashes is None else tuple(hashes.pairs),
    )


def _sampled(part: Part, columns: list[str], seed: int, hashes: "_Hashes | None") -> dict[str, _Cells]:
    """Cells of a sample, in one pass: float64 with NaN, or str with None, by column."""
    sample = sample_of(part.kept, seed)
    sought = part.kept if hashes is not None and hashes.is_sought else sample
    inner = sample[sought]
    taken: dict[str, list[_Cells]] = {name: [] for name in columns}
    first = 0
    for batch in kept_batches(part.index, [*columns, LINE], sought):
        if hashes is not None:
            hashes.add(part.index, batch)
        mask = pyarrow.array(inner[first : first + len(batch)])
        first += len(batch)
        for name, found in taken.items():
            cells = part.index.text_of(name, batch[name]).filter(mask)
            if pyarrow.types.is_floating(cells.type):
                found.append(cells.to_numpy(zero_copy_only=False))
            else:
                words = pc.cast(cells, pyarrow.string())
                found.append(pc.if_else(pc.equal(words, ""), None, words).to_numpy(zero_copy_only=False))
    return {name: np.concatenate(found) if found else np.zeros(0) for name, found in taken.items()}


class _Hashes:
    """Finds rows whose features are nearly the same: numbers to three digits, texts but for case and blanks."""

    def __init__(self, features: Sequence[str]) -> None:
        self.is_sought = False
        """Whether rows are compared with those that were added before."""
        self.found = 0
        self.pairs: list[tuple[str, str]] = []
        self._features = features
        self._known: list[tuple[CsvIndex, npt.NDArray[np.uint64], _Codes]] = []
        self._sorted: tuple[npt.NDArray[np.uint64], _Codes] | None = None
        self._is_found: Mask = np.zeros(0, bool)

    def add(self, index: CsvIndex, batch: pyarrow.RecordBatch) -> None:
        """Remember the rows of a batch, or look for them among those that are remembered."""
        hashes, lines = _hashes(index, batch, self._features), batch[LINE].to_numpy()
        if not self.is_sought:
            self._known.append((index, hashes, lines))
            return
        if self._sorted is None:
            known = np.concatenate([one[1] for one in self._known] or [np.zeros(0, np.uint64)])
            at = np.concatenate([one[2] for one in self._known] or [np.zeros(0, np.int64)])
            order = np.argsort(known, kind="stable")
            self._sorted, self._is_found = (known[order], at[order]), np.zeros(len(known), bool)
        known, at = self._sorted
        if not len(known) or not self._features:
            return
        where = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        for row in np.flatnonzero(known[where] == hashes):
            # Several rows of the other part may be the same.
            start = where[row]
            end = int(np.searchsorted(known, hashes[row], side="right"))
            new = ~self._is_found[start:end]
            self.found += int(new.sum())
            if new.any() and len(self.pairs) < _MOST_PAIRS:
                name = self._known[0][0].names.row(int(at[start]))
                self.pairs.append((name, index.names.row(int(lines[row]))))
            self._is_found[start:end] = True


def _hashes(index: CsvIndex, batch: pyarrow.RecordBatch, features: Sequence[str]) -> npt.NDArray[np.uint64]:
    found = np.zeros(len(batch), np.uint64)
    for name in features:
        cells = index.text_of(name, batch[name])
        if pyarrow.types.is_floating(cells.type):
            hashes = _rounded(cells.to_numpy(zero_copy_only=False)).view(np.uint64)
        else:
            encoded = cells if pyarrow.types.is_dictionary(cells.type) else cells.dictionary_encode()
            text = pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(encoded.dictionary), r"\s+", " "))
            of_value = np.append(text_hashes(text), np.uint64(1))
            hashes = of_value[pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)]
        found = mix64(found ^ hashes)
    return found


def _rounded(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Numbers to three significant digits; NaN as one value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = 10.0 ** (np.floor(np.log10(np.abs(numbers))) - 2)
        rounded = np.where(numbers == 0, 0.0, np.round(numbers / unit) * unit)
    return np.where(np.isnan(numbers), np.nan, rounded)


@dataclass(frozen=True)
class _Learned:
    """The target of the sampled training rows: classes, or numbers."""

    name: str
    classes: _Codes | None
    """The class of each row, -1 where missing."""
    numbers: npt.NDArray[np.float64] | None
    means: npt.NDArray[np.float64] | None
    """What is averaged in each bin, NaN where missing; None if there are more than two classes."""


def _learned(cells: _Cells, report: ColumnReport) -> _Learned:
    if cells.dtype != object and len(np.unique(cells[~np.isnan(cells)])) > 2:
        return _Learned(f"mean of {report.name}", None, cells, cells)
    texts = cells if cells.dtype == object else np.array([None if np.isnan(one) else f"{one:g}" for one in cells])
    values = sorted({one for one in texts if one is not None})
    code_of = {value: code for code, value in enumerate(values)}
    classes = np.array([-1 if one is None else code_of[one] for one in texts])
    if len(values) != 2:
        return _Learned("", classes, None, None)
    return _Learned(f"share of {report.name} = {values[1]}", classes, None, np.where(classes < 0, np.nan, classes))


def _column(report: ColumnReport, parts: list[_Cells], learned: _Learned | None) -> ColumnProfile:
    bins, codes = _histogram(parts)
    fine = _fine(parts)
    shares = [np.bincount(one, minlength=len(bins)) / max(1, len(one)) for one in codes]
    targets: list[float | None] = []
    if learned is not None and learned.means is not None:
        for number in range(len(bins)):
            inside = learned.means[codes[0] == number]
            inside = inside[~np.isnan(inside)]
            targets.append(float(inside.mean()) if len(inside) else None)
    drift, chance = _drift(fine) if len(fine) > 1 else (None, 0.0)
    words = [one if isinstance(one, str) else f"{one:.6g}" for one in parts[0][:1000].tolist() if one == one and one]
    return ColumnProfile(
        report,
        tuple(list(dict.fromkeys(words))[:_EXAMPLES]),
        bins,
        tuple(tuple(one.tolist()) for one in shares),
        tuple(targets),
        None if learned is None else _explained(parts[0], fine[0], learned),
        drift,
        chance,
    )


def _histogram(parts: list[_Cells]) -> tuple[tuple[str, ...], list[_Codes]]:
    """Names of bins, and the bin of each cell of each part."""
    cells = np.concatenate(parts)
    if cells.dtype == object:
        return _by_value(parts, _BARS)
    present = cells[~np.isnan(cells)]
    if len(values := np.unique(present)) <= _BARS:
        names = [f"{value:g}" for value in values]
        codes = [np.searchsorted(values, part) for part in parts]
    else:
        # Without the farthest numbers, which would leave all others in one bar.
        low, high = np.quantile(present, [0.005, 0.995])
        edges = np.linspace(low, high, _BARS + 1) if high > low else np.array([low, low])
        names = [f"{one:.4g} to {two:.4g}" for one, two in itertools.pairwise(edges)]
        if len(names) > 1:
            names[0], names[-1] = f"up to {edges[1]:.4g}", f"from {edges[-2]:.4g}"
        codes = [np.clip(np.searchsorted(edges, part, side="right") - 1, 0, len(names) - 1) for part in parts]
    codes = [np.where(np.isnan(part), len(names), code) for part, code in zip(parts, codes, strict=True)]
    has_missing = any((code == len(names)).any() for code in codes)
    return (*names, *([_MISSING] if has_missing else [])), codes


def _by_value(parts: list[_Cells], most: int) -> tuple[tuple[str, ...], list[_Codes]]:
    values, counts = np.unique([one for part in parts for one in part if one is not None] or [""], return_counts=True)
    # The more frequent first, and alphabetically.
    frequent = values[np.lexsort((values, -counts))][:most].tolist()
    names = [*frequent, _OTHER, _MISSING]
    code_of: dict[str | None, int] = {value: code for code, value in enumerate(frequent)}
    other, missing = len(frequent), len(frequent) + 1
    codes = [
        np.array([missing if one is None else code_of.get(one, other) for one in part], np.int64) for part in parts
    ]
    if not any((code == missing).any() for code in codes):
        names.pop()
        if len(values) <= most:
            names.pop()
    return tuple(names), codes


def _fine(parts: list[_Cells]) -> list[_Codes]:
    """Finer bins for comparisons: quantiles of numbers, or more values."""
    cells = np.concatenate(parts)
    if cells.dtype == object:
        return _by_value(parts, _MOST_BINS)[1]
    present = cells[~np.isnan(cells)]
    if not len(present):
        return [np.zeros(len(part), np.int64) for part in parts]
    count = int(np.clip(len(cells) // _ROWS_A_BIN, 5, _MOST_BINS))
    edges = np.unique(np.quantile(present, np.linspace(0, 1, count + 1)[1:-1]))
    return [
        np.where(np.isnan(part), len(edges) + 1, np.searchsorted(edges, part, side="right")).astype(np.int64)
        for part in parts
    ]


def _drift(codes: list[_Codes]) -> tuple[float, float]:
    """The total variation distance of two parts, and the largest that is likely by chance."""
    width = max(int(part.max(initial=0)) for part in codes) + 1
    counts = np.array([np.bincount(part, minlength=width) for part in codes])
    sizes = counts.sum(1)
    if not sizes.all():
        return 0.0, 0.0

    def distance(found: npt.NDArray[Any]) -> Any:
        shares = found / sizes[:, None]
        return np.abs(shares[..., 0, :] - shares[..., 1, :]).sum(-1) / 2

    pooled = counts.sum(0) / sizes.sum()
    random = np.random.default_rng(0)
    draws = np.stack([random.multinomial(size, pooled, _DRAWS) for size in sizes], axis=1)
    likely = distance(draws)
    return float(distance(counts)), float(likely.mean() + _DEVIATIONS * likely.std())


def _explained(cells: _Cells, codes: _Codes, learned: _Learned) -> float:
    """The share of the target that bins explain: fitted on every other row, and judged on those between."""
    width = int(codes.max(initial=0)) + 1
    if learned.classes is not None:
        known = learned.classes >= 0
        bins, classes = codes[known], learned.classes[known]
        count = int(classes.max(initial=0)) + 1
        fitted = np.zeros((width, count))
        np.add.at(fitted, (bins[::2], classes[::2]), 1)
        prior = (fitted.sum(0) + 1) / (fitted.sum() + count)
        # As if each bin had one more row, of all classes.
        likely = (fitted + prior) / (fitted.sum(1, keepdims=True) + 1)
        losses = -np.log(likely[bins[1::2], classes[1::2]])
        base = -np.log(prior[classes[1::2]])
        return _share(float(losses.sum()), float(base.sum()))
    assert learned.numbers is not None
    known = ~np.isnan(learned.numbers)
    bins, numbers = codes[known], learned.numbers[known]
    counts, mean = np.bincount(bins[::2], minlength=width), numbers[::2].mean() if len(numbers) else 0.0
    means = (np.bincount(bins[::2], numbers[::2], minlength=width) + mean) / (counts + 1)
    judged = numbers[1::2]
    found = _share(float(((judged - means[bins[1::2]]) ** 2).sum()), float(((judged - mean) ** 2).sum()))
    if cells.dtype != object:
        found = max(found, _rank_correlation(cells[known], numbers) ** 2)
    return found


def _share(left: float, whole: float) -> float:
    return max(0.0, 1 - left / whole) if whole > 0 else 0.0


def _rank_correlation(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> float:
    """The correlation of dense ranks, equal for equal numbers; 0 for few rows."""
    both = ~np.isnan(one)
    if both.sum() < _BARS or not one[both].std() or not two[both].std():
        return 0.0
    ranks = [np.unique(part[both], return_inverse=True)[1] for part in (one, two)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
