"""Random tables written with Python's csv module in random dialects, read and compared cell by cell."""

import csv
import io
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from blitz.data.csv.reading.head import read_head
from blitz.data.csv.reading.index import index_csv
from blitz.data.csv.reading.layout import LINE
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.reading.source_files import SourceFile
from blitz.errors import DataError

_WORDS = ["", "a", "plain", "two words", " padded ", "0", "-1.5", "1,5", "1.234", "NA", "nan", "é", "日本", "x" * 300]
_MARKS = [
    ",",
    ";",
    "\t",
    "|",
    '"',
    "'",
    '""',
    "''",
    "\n",
    "\r\n",
    "\r",
    "#",
    "\\",
    "=",
    ":",
    "\u00a0",
    "\u2028",
    "\x0b",
]
_ENCODINGS = ["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"]


@dataclass(frozen=True)
class RandomTable:
    """A table as bytes; `rows` are what was written below the header."""

    data: bytes
    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    """The line that each row starts on."""
    options: CsvOptions
    what: str


def random_table(seed: int) -> RandomTable:
    """The table of a seed."""
    rng = random.Random(seed)
    width, height = rng.randint(1, 5), rng.choice([1, 2, 3, 5, 8, 20, 60])
    delimiter, quote, terminator = rng.choice(",;\t|"), rng.choice('""\''), rng.choice(["\n", "\r\n", "\n", "\r"])
    quoting: Literal[0, 1, 2] = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    marks = rng.sample(_MARKS, rng.choice([0, 1, 3, len(_MARKS)]))
    style = rng.choice(["words", "mixed", "mixed", "numbers"])
    rows = [[_cell(rng, style, marks) for _ in range(width)] for _ in range(height)]
    header = rng.choice(["words", "words", "words", "marks", "numeric", "index", "none"])
    names = _names(rng, width, header, marks)
    given: dict[str, Any] = {}
    # Rows with a comma each cannot be known to have one column without a header, or if its name has a comma, too.
    unsure = width == 1 and (header == "none" or any(mark in names[0] for mark in ",;\t|"))
    if rng.random() < 0.2 or unsure:
        given["delimiter"] = delimiter
    # Text in double quotes looks quoted unless single quotes are known to be the file's.
    if rng.random() < 0.2 or (quote == "'" and any(cell.startswith('"') for row in [names, *rows] for cell in row)):
        given["quote"] = quote
    if header == "none":
        given["header"] = "no"
    elif header == "numeric" and rng.random() < 0.5:
        given["header"] = "yes"
    trailing = delimiter if rng.random() < 0.05 and header in ("words", "marks") else ""
    parts = [f"sep={delimiter}{terminator}"] if rng.random() < 0.05 else []

    def write(row: list[str], trailing: str) -> None:
        # Python does not quote a line break that is not in the terminator, which would start another row.
        safe = csv.QUOTE_ALL if any(re.search(r"[\r\n]", cell) for cell in row) else quoting
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter, quotechar=quote, quoting=safe, lineterminator="").writerow(row)
        parts.append(text.getvalue() + trailing + terminator)

    if header != "none":
        write(["", *names] if header == "index" else names, "")
    lines, line = [], 1 + sum(map(_line_breaks, parts))
    for number, row in enumerate(rows):
        lines.append(line)
        write([str(number), *row] if header == "index" else row, trailing)
        line += _line_breaks(parts[-1])
    text = "".join(parts)
    if rng.random() < 0.2:
        text = text.removesuffix(terminator)
    encoding: Any = rng.choice([encoding for encoding in _ENCODINGS if _encodes(text, encoding)])
    if rng.random() < 0.1 or (encoding in ("cp1252", "latin-1") and not text.isascii()):
        given["encoding"] = encoding
    what = f"seed {seed}: {delimiter!r} {quote} {terminator!r} {encoding} {header} {quoting} {trailing!r} {given}"
    return RandomTable(text.encode(encoding), names, rows, lines, CsvOptions(**given), what)


def _cell(rng: random.Random, style: str, marks: list[str]) -> str:
    if style == "numbers":
        return rng.choice(
            ["", str(rng.randint(-9, 999)), f"{rng.random():.3f}", f"{rng.random():.2f}".replace(".", ",")]
        )
    words = rng.choices(_WORDS + (marks if style == "mixed" else []), k=rng.choice([1, 1, 2, 4]))
    return "".join(words)


def _names(rng: random.Random, width: int, header: str, marks: list[str]) -> list[str]:
    if header == "none":
        return [f"column_{column}" for column in range(1, width + 1)]
    if header == "numeric":
        return [rng.choice([f"{column}", f"-{column}.5"]) for column in range(1, width + 1)]
    if header == "marks":
        return [f"{rng.choice(['', *marks])}name {column}{rng.choice(['', *marks])}" for column in range(width)]
    return [f"name_{column}" for column in range(width)]


def _line_breaks(text: str) -> int:
    return len(re.findall(r"\r\n|\r|\n", text))


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def what_became_of(table: RandomTable, folder: Path) -> tuple[str, int]:
    """`read`, or why the file was refused; and how many of its rows are bad.

    Raises:
        AssertionError: if a row is lost, invented or read otherwise than it was written, and not among the bad ones.
    """
    path = folder / "table.csv"
    path.write_bytes(table.data)
    try:
        names = list(read_head(SourceFile.of(str(path)), table.options).dialect.names)
        index = index_csv(path, folder, replace(table.options, types=dict.fromkeys(names, "text")))
    except DataError as error:
        if "\n" in str(error):
            raise AssertionError(f"{table.what}: not one line: {error}") from error
        return str(error), 0
    finally:
        for each in folder.glob("*.seen.json"):
            each.unlink()
    assert names == table.names, f"{table.what}: the names are {names}, not {table.names}"
    bad = set(index.bad_rows().faults["line"].to_pylist())
    arrow = index.table()
    cells = zip(*(arrow[name].to_pylist() for name in names), strict=True)
    read = {line: list(row) for line, row in zip(arrow[LINE].to_pylist(), cells, strict=True) if line not in bad}
    written = {line: row for line, row in zip(table.lines, table.rows, strict=True) if line not in bad}
    assert read == written, f"{table.what}: {_first_difference(read, written)}"
    return "read", len(bad)


def _first_difference(read: dict[int, list[str]], written: dict[int, list[str]]) -> str:
    line = next(line for line in sorted({*read, *written}) if read.get(line) != written.get(line))
    return f"line {line} is {read.get(line)}, not {written.get(line)}"
