"""Tables of random cells as files in random dialects, some damaged, and what a strict reader sees in them."""

import bz2
import csv
import gzip
import io
import lzma
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import pyarrow

from bench.fuzz.stock import CATEGORIES, NUMBERS

MISSING = ("", "", "", "NA", "nan", "NaN", "NAN", "null", "NULL", "None", "none", "n/a", "N/A", "#N/A", "-", "?")
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1")
DAMAGES = (
    "truncated",
    "NUL",
    "torn quote",
    "escapes",
    "extra cell",
    "missing cell",
    "mixed encodings",
    "bytes",
    "newline",
)
_QUOTINGS: tuple[Literal[0, 1, 2], ...] = (csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC)


@dataclass
class Table:
    """A table as it was meant, and how it is written."""

    names: list[str]
    rows: list[list[str]]
    values: list[tuple[float | None, str]]
    """x and c of each row."""
    delimiter: str = ","
    quote: str = '"'
    quoting: Literal[0, 1, 2] = csv.QUOTE_MINIMAL
    newline: str = "\n"
    encoding: str = "utf-8"
    packing: str = ""
    """The end of the file's name, if it is compressed."""
    extras: list[str] = field(default_factory=list)
    damage: str = ""
    damaged: set[int] = field(default_factory=set)
    """Rows that were touched."""

    @property
    def x(self) -> int:
        """Where column x is."""
        return self.names.index("x")

    def line(self, cells: list[str]) -> str:
        """One row as it is written."""
        text = io.StringIO()
        writer = csv.writer(
            text, delimiter=self.delimiter, quotechar=self.quote, quoting=self.quoting, lineterminator=self.newline
        )
        # Python leaves line breaks bare that are not in the terminator.
        bare = any("\r" in cell or "\n" in cell for cell in cells)
        if bare and self.quoting == csv.QUOTE_MINIMAL:
            quoted = (self.quote + cell.replace(self.quote, self.quote * 2) + self.quote for cell in cells)
            return self.delimiter.join(quoted) + self.newline
        writer.writerow(cells)
        return text.getvalue()

    def lines(self) -> list[str]:
        """The header and each row, as they are written."""
        end = self.delimiter if "trailing delimiter" in self.extras else ""
        written = [self.names, *self.rows]
        if "index column" in self.extras:
            written = [[str(number - 1) if number else "", *cells] for number, cells in enumerate(written)]
        return [f"{self.line(cells).removesuffix(self.newline)}{end}{self.newline}" for cells in written]

    @property
    def above(self) -> int:
        """Lines above the header."""
        return ("sep line" in self.extras) + ("comment lines" in self.extras)

    def flags(self) -> list[str]:
        """What has to be said of it, for it cannot be guessed."""
        flags = ["--comment", "#"] if "comment lines" in self.extras else []
        if "units row" in self.extras:
            line = self.above + 2 + sum(name.count("\n") for name in self.names)
            flags += ["--skip-lines", str(line)]
        return flags

    def __str__(self) -> str:
        quoting = {csv.QUOTE_MINIMAL: "minimal", csv.QUOTE_ALL: "all", csv.QUOTE_NONNUMERIC: "nonnumeric"}
        return (
            f"{len(self.rows)} rows, {len(self.names)} columns, {self.delimiter!r} {self.quote} {self.newline!r} "
            f"{self.encoding} quoting {quoting[self.quoting]} {self.packing} {', '.join(self.extras)} "
            f"damage: {self.damage or 'none'}"
        )


def random_table(rng: random.Random, *, rows: int | None = None) -> Table:
    """A table of random cells in a random dialect, undamaged."""
    rows = rng.choice([1, 2, 5, 20, 60, 60, 200, 200, 3000]) if rows is None else rows
    encoding = rng.choice(ENCODINGS)
    delimiter, quote = rng.choice(",,,;;\t|"), "'" if rng.random() < 0.1 else '"'
    letters = (
        "é ü ß € “x” ñ" if encoding == "cp1252" else "é ü ß ñ" if encoding == "latin-1" else "é 日本 🙂 ß\u00a0\u2028"
    )
    notes = [
        "plain", "", "it's", "'tis", "'n' roll'", 'she said "no"', '"', "a,b", "a;b", "a\tb", "a|b", "two\nlines", "\n",
        "x\r\ny", " blank ", "0012", "1e5", "=1+1", "#no", "NA", "nan", "-", "1,5", "1.234", "2024-01-05", letters,
        "x" * 300,
    ]  # fmt: skip
    if quote == "'":
        notes = [note for note in notes if '"' not in note]
    decimal = "," if delimiter in ";\t" and rng.random() < 0.5 else "."
    spelling = rng.choice(MISSING)
    columns: dict[str, list[str]] = {"id": [f"r{i:05}" for i in range(rows)]}
    values = [(rng.choice(NUMBERS), rng.choice(CATEGORIES)) for _ in range(rows)]
    columns["x"] = [spelling if x is None else repr(x).replace(".", decimal) for x, _ in values]
    columns["c"] = [c for _, c in values]
    pools: dict[str, Callable[[], str]] = {
        "big": lambda: str(10**18 + rng.randrange(10**6)) if rng.random() < 0.9 else "NA",
        "zip code": lambda: f"{rng.randrange(99999):05}" if rng.random() < 0.95 else "NA",
        "note": lambda: rng.choice(notes),
        "other note": lambda: rng.choice(notes),
        "float": lambda: f"{rng.uniform(-9, 9):.4f}".replace(".", decimal),
        "same": lambda: f"0{decimal}1",
        "2019": lambda: str(rng.randrange(1000)),
        "a,b;c": lambda: rng.choice("yn"),
        "naïve": lambda: rng.choice("yn"),
        "two\nlines": lambda: rng.choice("yn"),
        "empty": lambda: "",
        "thousands": lambda: f"{rng.randrange(1000, 10**7):,}".replace(",", "," if decimal == "." else "."),
    }
    for name in rng.sample([*pools], rng.randrange(5)):
        if quote == "'" or name != "two\nlines" or rng.random() < 0.5:
            columns[name] = [pools[name]() for _ in range(rows)]
    names = ["id", *rng.sample([*columns][1:], len(columns) - 1)]
    table = Table(names, [[columns[name][i] for name in names] for i in range(rows)], values, delimiter, quote)
    if rows > 1 and rng.random() < 0.05:
        row = rng.randrange(rows)
        table.rows[row], table.values[row] = [""] * len(names), (None, "")
        table.extras.append("empty row")
    table.quoting = rng.choice(_QUOTINGS)
    table.newline = rng.choice(["\n", "\n", "\r\n", "\r"])
    table.encoding = encoding
    table.packing = rng.choice([""] * 30 + [".gz", ".bz2", ".xz", ".zst", ".zip"])
    for extra, chance in (
        ("sep line", 0.05),
        ("trailing delimiter", 0.05),
        ("no last newline", 0.2),
        ("blank lines", 0.1),
        ("index column", 0.08),
        ("comment lines", 0.08),
        ("units row", 0.06),
    ):
        if rng.random() < chance:
            table.extras.append(extra)
    if rows <= 60 and rng.random() < 0.03:
        # A header of more bytes than a reader looks at first.
        wide = [f"gene {i} {'g' * 500}" for i in range(300)]
        table.names += wide
        table.rows = [[*row, *("" for _ in wide)] for row in table.rows]
        table.extras.append("wide header")
    return table


def encoded(table: Table, rng: random.Random) -> bytes:
    """The file's bytes, before they are packed, damaged as `table.damage` says; notes which rows that touched."""
    lines = table.lines()
    if table.damage in ("extra cell", "missing cell", "torn quote", "newline", "escapes") and len(lines) > 1:
        for row in {rng.randrange(len(table.rows)) for _ in range(rng.choice([1, 1, 3]))}:
            lines[row + 1] = _damaged_line(table, lines[row + 1], rng)
            table.damaged.add(row)
    rows: list[int | None] = [None, *range(len(table.rows))]
    """For each line the row that it is of."""
    if "units row" in table.extras:
        lines.insert(1, table.line(["kg" for _ in table.names]))
        rows.insert(1, None)
    if "comment lines" in table.extras:
        for at in (0, *(rng.randrange(2 + ("units row" in table.extras), len(lines) + 1) for _ in range(2))):
            lines.insert(at, f"# made by a tool{table.delimiter} 2024{table.newline}")
            rows.insert(at, None)
    if "sep line" in table.extras:
        lines.insert(0, f"sep={table.delimiter}{table.newline}")
        rows.insert(0, None)
    if "no last newline" in table.extras:
        lines[-1] = lines[-1].removesuffix(table.newline)
    elif "blank lines" in table.extras:
        lines.append(table.newline * 2)
    encoding = "utf-8" if table.encoding == "utf-8-sig" else table.encoding
    wide = table.encoding.startswith("utf-16")
    encoding = "utf-16-le" if table.encoding == "utf-16" else encoding
    parts = [bytearray(line.encode(encoding)) for line in lines]
    starts, total = [], 0
    for part in parts:
        starts.append(total)
        total += len(part)
    data = b"".join(parts)
    line_of = {row: line for line, row in enumerate(rows) if row is not None}
    rows_start = starts[line_of[0]] if table.rows else total

    def touched(start: int, end: int) -> None:
        """Rows that bytes from `start` to `end` lie in."""
        for row in range(len(table.rows)):
            begin = starts[line_of[row]]
            stop = begin + len(parts[line_of[row]])
            if begin < end and start < stop:
                table.damaged.add(row)

    if table.rows and table.damage in ("truncated", "NUL", "bytes", "mixed encodings"):
        at = rng.randrange(rows_start, total)
        at -= at % 2 if wide else 0
        if table.damage == "truncated":
            data = data[:at]
            touched(at, total)
        elif table.damage == "mixed encodings":
            data = data[:at] + (b"\xe9" if not wide else "é".encode(encoding)) + data[at:]
            touched(at, at + 1)
        else:
            fresh = b"\0" if table.damage == "NUL" else rng.randbytes(1)
            data = data[:at] + (fresh if not wide else bytes([fresh[0], 0])) + data[at + (2 if wide else 1) :]
            touched(at, at + 1)
        # Whoever replaces a line break touches the next row, too.
        touched(at + 1, at + 3)
        touched(at - 2, at)
    mark = {"utf-8-sig": b"\xef\xbb\xbf", "utf-16": b"\xff\xfe"}.get(table.encoding, b"")
    return mark + data


def _damaged_line(table: Table, line: str, rng: random.Random) -> str:
    body, end = line.removesuffix(table.newline), table.newline
    if table.damage == "extra cell":
        return body + table.delimiter + "extra" + end
    if table.damage == "missing cell":
        return table.line([line.split(table.delimiter)[0]])
    if table.damage == "escapes":
        return body.replace(table.quote * 2, f"\\{table.quote}") + end
    at = rng.randrange(len(body) + 1)
    if table.damage == "newline":
        return body[:at] + table.newline + body[at:] + end
    quotes = [index for index, letter in enumerate(body) if letter == table.quote]
    if quotes and rng.random() < 0.7:
        at = rng.choice(quotes)
        return body[:at] + body[at + 1 :] + end
    return body[:at] + table.quote + body[at:] + end


def packed(data: bytes, packing: str) -> bytes:
    """Bytes compressed as the file's ending says."""
    match packing:
        case ".gz":
            return gzip.compress(data)
        case ".bz2":
            return bz2.compress(data)
        case ".xz":
            return lzma.compress(data)
        case ".zst":
            out = pyarrow.BufferOutputStream()
            with pyarrow.CompressedOutputStream(out, "zstd") as stream:
                stream.write(data)
            return bytes(out.getvalue())
        case ".zip":
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("table.csv", data)
            return file.getvalue()
    return data


def strictly_read(table: Table, data: bytes) -> list[list[str]] | None:
    """The rows of damaged bytes that are a sound CSV still, as Python's strict reader sees it; else None."""
    try:
        text = data.decode({"utf-16": "utf-16"}.get(table.encoding, table.encoding))
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=table.delimiter, quotechar=table.quote, strict=True
        )
        comments = "comment lines" in table.extras
        rows = [row for row in reader if row and not (comments and row[0].startswith("#"))]
    except (UnicodeError, csv.Error):
        return None
    rows = rows[("sep line" in table.extras) :]
    if "units row" in table.extras:
        del rows[1]
    if "\0" in text or any(len(row) != len(rows[0]) for row in rows):
        return None
    begin = "index column" in table.extras
    rows = [row[begin : begin + len(table.names)] for row in rows]
    return rows[1:] if rows[0] == table.names else None
