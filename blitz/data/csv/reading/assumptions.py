"""The assumptions of a pass over a CSV, first from its head, then from all of its cells."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow

from blitz.data.csv.reading.columns import MAX_LABELS, Categories, ColumnType, NumberColumn, Texts, infer_type
from blitz.data.csv.reading.numbers import Decimal, Evidence, NumberReader, Writing, decimal_of, marks_shown, writing_of
from blitz.data.csv.reading.units import UNITS, Unit, without_unit

_MOST_PASSES = 3


@dataclass(frozen=True)
class Given:
    """What the options say about the columns."""

    types: Mapping[str, ColumnType] = field(default_factory=dict)
    """Types that are not to be inferred."""
    labels: tuple[str, ...] = ()
    verbatim: tuple[str, ...] = ()
    """Categories of which only blank cells are missing."""
    decimal: Decimal | None = None
    usual_decimal: Decimal = "."
    """The decimal mark where no cell shows which it is."""


@dataclass(frozen=True)
class Assumed:
    """The type of each column, how number columns write their numbers, and which categories hold words."""

    types: Mapping[str, ColumnType]
    writings: Mapping[str, Writing]
    words: frozenset[str]
    decimal: Decimal
    doubted: frozenset[str] = frozenset()
    """Columns of numbers that seem to be none, of which this pass records all values."""
    passes: int = 1
    """The number of passes, including this one."""

    @property
    def key(self) -> dict[str, Any]:
        """What the index of a file depends on, as JSON has it; the number of passes only decides if it is written."""
        return {
            "types": dict(self.types),
            "writings": {name: asdict(writing) for name, writing in self.writings.items()},
            "words": sorted(self.words),
            "doubted": sorted(self.doubted),
        }

    def columns(self, given: Given) -> dict[str, Any]:
        """A collector of the cells of each column."""
        made: dict[str, Any] = {}
        for name, kind in self.types.items():
            if kind == "number":
                made[name] = NumberColumn(self.writings[name])
            elif kind == "category":
                made[name] = Categories(words=name in self.words, verbatim=name in given.verbatim)
            else:
                made[name] = Texts()
        return made


def assumed_from(head: Mapping[str, Sequence[str]], given: Given) -> Assumed:
    """The assumptions from the first cells of each column."""
    evidence: dict[str, Evidence] = {}
    units: dict[str, Unit] = {}
    for name, cells in head.items():
        is_few = given.labels == (name,) and len(set(cells)) <= MAX_LABELS
        # Few labels with a sign are names of classes.
        units[name], evidence[name] = ("", evidence_of(cells)) if is_few else _with_unit(cells)
    voting = {name: one for name, one in evidence.items() if given.types.get(name, "number") == "number"}
    decimal = decimal_of(voting, given=given.decimal, usual=given.usual_decimal)
    writings = {
        name: replace(writing_of(one, decimal, given.decimal), unit=units[name]) for name, one in evidence.items()
    }
    types = {
        name: given.types.get(name) or infer_type(head[name], one, writings[name], is_label=given.labels == (name,))
        for name, one in evidence.items()
    }
    words = frozenset(name for name, one in evidence.items() if one.other)
    return Assumed(types, writings, words, decimal)


def evidence_of(cells: Sequence[str]) -> Evidence:
    """How cells write numbers."""
    reader = NumberReader(Writing())
    reader.read(pyarrow.array(cells, pyarrow.string()))
    return reader.evidence


def _with_unit(cells: Sequence[str]) -> tuple[Unit, Evidence]:
    """The sign beside the numbers of a column, if there is one, and the number format without it."""
    evidence = evidence_of(cells)
    if evidence.other and not evidence.is_number(evidence.writing(evidence.mark or ".")):
        text = pyarrow.array(cells, pyarrow.string())
        for unit in UNITS:
            bare = without_unit(text, unit).to_pylist()
            found = evidence_of(bare)
            signs = sum(one != other for one, other in zip(cells, bare, strict=True))
            if 2 * signs >= found.present and found.is_number(found.writing(found.mark or ".")):
                return unit, found
    return "", evidence


def assumed_after(assumed: Assumed, columns: Mapping[str, Any], given: Given, *, several_files: bool) -> Assumed:
    """The assumptions from all cells of each column; `assumed` itself if it holds.

    Of several files one alone may refute that a column is one of numbers: then the values of the others are not known.
    """
    numbers: dict[str, NumberColumn] = {
        name: column for name, column in columns.items() if isinstance(column, NumberColumn)
    }
    types, words, writings = dict(assumed.types), set(assumed.words), dict(assumed.writings)
    decimal, doubted = assumed.decimal, set()
    if assumed.passes < _MOST_PASSES:
        evidence = {name: column.evidence for name, column in numbers.items()}
        decimal = decimal_of(evidence, given=given.decimal, usual=given.usual_decimal)
        writings |= {
            name: replace(writing_of(one, decimal, given.decimal), unit=writings[name].unit)
            for name, one in evidence.items()
        }
    for name, column in numbers.items():
        found = column.evidence
        refuted = found.identifies or not found.is_number(writings[name])
        if found.present and refuted and name not in given.types:
            if several_files and not column.is_known:
                doubted.add(name)
                continue
            types[name] = column.other_type(is_label=given.labels == (name,))
            words |= {name} if found.other else set()
    for name, column in columns.items():
        if isinstance(column, Categories):
            words |= {name} if column.refuted else set()
            types[name] = "text" if column.too_many else types[name]
    better = replace(
        assumed,
        types=types,
        words=frozenset(words),
        writings=writings,
        decimal=decimal,
        doubted=frozenset(doubted),
    )
    return assumed if better == assumed else replace(better, passes=assumed.passes + 1)


def notes_on(assumed: Assumed, columns: Mapping[str, Any], given: Given) -> dict[str, str]:
    """Notes on how cells were read, for columns where that is not obvious."""
    evidence = {name: column.evidence for name, column in columns.items() if isinstance(column, NumberColumn)}
    agreed = given.decimal is not None or len(set(marks_shown(evidence))) == 1
    notes = {}
    for name, found in evidence.items():
        writing = assumed.writings[name]
        marked = found.dots + found.grouped + found.spaced > 0
        remarks = [str(writing)] if writing.unit or (marked and writing != Writing()) else []
        if not agreed and found.mark is None and found.either + found.either_grouped:
            fraction = f"1{writing.decimal}234"
            cell, value = (fraction, "1.234") if found.either else ("1.234" if fraction == "1,234" else "1,234", "1234")
            remarks.append(
                f"ambiguous: {cell} is read as {value}; no cell shows the decimal mark, which a flag can set"
            )
        if remarks:
            notes[name] = "; ".join(remarks)
    return notes
