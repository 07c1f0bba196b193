"""Faults planted at random into CSVs of every dialect: all are found, at the right line, and none is invented."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from blitz.data.csv.reading.index import index_csv
from blitz.data.csv.reading.reader import CsvOptions

DIALECTS = [
    (",", "\n", "utf-8"),
    (",", "\r\n", "utf-8-sig"),
    (";", "\r\n", "utf-16"),
    ("\t", "\n", "cp1252"),
    ("|", "\r\n", "latin-1"),
    (",", "\r", "utf-8"),
    ("\t", "\n", "utf-16"),
    (";", "\n", "utf-8"),
]
NAMES = ["id", "note", "age", "label"]
NO_NUMBERS = ["abc", "1,5", "inf", "1e999", "12 3", "0x10", "--1", "é"]


@dataclass
class Planted:
    """A CSV that is written row by row, and the faults in it as (line, column, value)."""

    delimiter: str
    newline: str
    parts: list[str] = field(default_factory=list)
    lines: int = 0
    rows: int = 0
    faults: list[tuple[int, str | None, str]] = field(default_factory=list)

    def write(self, cells: list[str], faults: dict[str | None, str] | None = None) -> None:
        row = self.delimiter.join(self.quoted(cell) for cell in cells)
        for column, value in (faults or {}).items():
            self.faults.append((self.lines + 1, column, row if column is None else value))
        self.parts.append(row + self.newline)
        self.lines += 1 + row.count(self.newline)

    def quoted(self, cell: str) -> str:
        special = any(mark in cell for mark in f'{self.delimiter}\r\n"')
        return '"' + cell.replace('"', '""') + '"' if special else cell


def planted(seed: int, rows: int, delimiter: str, newline: str, encoding: str, *, bad_numbers: bool) -> Planted:
    rng = random.Random(seed)
    csv = Planted(delimiter, newline)
    csv.write(NAMES)
    accents = "é" if encoding != "latin-1" else "é\x81"
    notes = [
        "plain",
        f"two{newline}lines",
        f"{newline}{newline}three",
        f"a{delimiter}b",
        'she said "no"',
        accents,
        "",
        "it's",
        f'"{delimiter}"{newline}',
    ]
    for number in range(rows):
        cells = [str(number), rng.choice(notes), rng.choice(["", "NA", "31", "4.5", "-1e3", " 7 "]), rng.choice("ab")]
        csv.rows += 1
        match rng.randrange(60):
            case 0:
                csv.write(cells[: rng.randrange(2, 4)], {None: ""})
            case 1:
                csv.write([*cells, *rng.choices(notes[:-1], k=rng.randrange(1, 3))], {None: ""})
            case 2 if bad_numbers:
                cells[2] = rng.choice(NO_NUMBERS)
                csv.write(cells, {"age": cells[2]})
            case 3:
                cells[3] = ""
                csv.write(cells, {"label": ""})
            case 4 if bad_numbers:
                cells[2:] = ["abc", ""]
                csv.write(cells, {"age": "abc", "label": ""})
            case 5:
                csv.parts.append(newline)
                csv.lines += 1
                csv.write(cells)
            case _:
                csv.write(cells)
    return csv


@pytest.mark.parametrize(("delimiter", "newline", "encoding"), DIALECTS)
@pytest.mark.parametrize(("seed", "bad_numbers"), [(1, True), (2, False)])
def test_all_planted_faults_are_found_and_no_others(
    tmp_path: Path, delimiter: str, newline: str, encoding: str, seed: int, bad_numbers: bool
) -> None:
    check(tmp_path, planted(seed, 400, delimiter, newline, encoding, bad_numbers=bad_numbers), encoding)


@pytest.mark.parametrize(("delimiter", "newline", "encoding"), [DIALECTS[0], DIALECTS[2]])
def test_all_planted_faults_are_found_in_a_file_of_several_blocks(
    tmp_path: Path, delimiter: str, newline: str, encoding: str
) -> None:
    check(tmp_path, planted(3, 120_000, delimiter, newline, encoding, bad_numbers=True), encoding)


def check(folder: Path, csv: Planted, encoding: str) -> None:
    path = folder / "train.csv"
    path.write_bytes("".join(csv.parts).encode(encoding))
    index = index_csv(path, folder / "cache", CsvOptions(types={"age": "number"}, label_columns=("label",)))
    found = [(fault["line"], fault["column"], fault["value"]) for fault in index.bad_rows().faults.to_pylist()]
    assert found == [(line, column, value[:100]) for line, column, value in csv.faults]
    assert index.total_rows == csv.rows
    assert (index.dialect.delimiter, index.dialect.quote, index.dialect.encoding) == (csv.delimiter, '"', encoding)
