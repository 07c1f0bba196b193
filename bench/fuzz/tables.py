"""Tables in random dialects, some damaged: every row comes back to the cell, or is named as bad, or all is refused.

A table has an id in its first column, the two columns that the stock's model reads, and others that must come back as
they stood. What the model says of x and c is known, so that a row whose numbers were misread is found, too.
"""

import bz2
import csv
import gzip
import io
import lzma
import math
import random
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow

from bench.fuzz.commands import Commands, Done, Find, expect
from bench.fuzz.stock import CATEGORIES, HERE, NUMBERS, Stock

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
_APPENDED = re.compile(r"prediction|probability(_.*)?|error")


@dataclass
class Table:
    """A table as intended, and its dialect."""

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
        """The index of column x."""
        return self.names.index("x")

    def line(self, cells: list[str]) -> str:
        """One row as text."""
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
        """The header and each row as text."""
        end = self.delimiter if "trailing delimiter" in self.extras else ""
        return [
            f"{self.line(cells).removesuffix(self.newline)}{end}{self.newline}" for cells in [self.names, *self.rows]
        ]

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
    ):
        if rng.random() < chance:
            table.extras.append(extra)
    return table


def encoded(table: Table, rng: random.Random) -> bytes:
    """The file's bytes, before they are packed, damaged as `table.damage` says; notes which rows that touched."""
    lines = table.lines()
    if table.damage in ("extra cell", "missing cell", "torn quote", "newline", "escapes") and len(lines) > 1:
        for row in {rng.randrange(len(table.rows)) for _ in range(rng.choice([1, 1, 3]))}:
            lines[row + 1] = _damaged_line(table, lines[row + 1], rng)
            table.damaged.add(row)
    if "sep line" in table.extras:
        lines.insert(0, f"sep={table.delimiter}{table.newline}")
    first = len(lines) - len(table.rows)
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
    rows_start = starts[first] if table.rows else total

    def touched(start: int, end: int) -> None:
        """Rows that bytes from `start` to `end` lie in."""
        for row in range(len(table.rows)):
            begin, stop = starts[first + row], starts[first + row] + len(parts[first + row])
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
        # Replacing a line break damages the next row, too.
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
    quotes = [at for at, letter in enumerate(body) if letter == table.quote]
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
        rows = [row for row in reader if row]
    except (UnicodeError, csv.Error):
        return None
    end = len(rows) - 1 if "sep line" in table.extras else len(rows)
    rows = rows[-end:]
    if "\0" in text or any(len(row) != len(rows[0]) for row in rows) or rows[0][: len(table.names)] != table.names:
        return None
    return [row[: len(table.names)] for row in rows[1:]]


def case(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    """One table through `prepare` and `predict`."""
    table = random_table(rng)
    if rng.random() < 0.4:
        table.damage = rng.choice(DAMAGES)
    data = encoded(table, rng)
    file = folder / f"in.csv{table.packing}"
    file.write_bytes(packed(data, table.packing))
    named = rng.random() < 0.3
    options = {"delimiter": table.delimiter, "quote": table.quote, "encoding": table.encoding} if named else {}
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    counts: Counter[str] = Counter(rows=len(table.rows), undamaged=not table.damage)
    if rng.random() < 0.7:
        done = commands.run(folder, "prepare", file.name, "--out", "prepared", *flags)
        check_prepared(table, done)
        counts["refused"] += done.code == 2
    flags = [word.replace("--", "--data.", 1) if word.startswith("--") else word for word in flags]
    done = commands.run(folder, "predict", str(stock.table_run), file.name, "out.csv", *HERE, *flags)
    if done.code == 2:
        sound = not table.damage and table.rows
        expect(not sound, "undamaged table refused", f"{table}: {done.err.strip()[-400:]}")
        expect(not (folder / "out.csv").exists(), "refused and written", str(done))
        counts["refused"] += 1
        return counts
    counts.update(check_predicted(table, data, folder / "out.csv", stock))
    return counts


def check_prepared(table: Table, done: Done) -> None:
    """Check what prepare prints for an undamaged table: its rows, its columns, and column x."""
    if table.damage:
        return
    head = re.search(r": ([\d,]+) rows?, (\d+) columns", done.out)
    if head is None:
        # A category that no row has, or no row: prepare may refuse; that predict does not is looked at there.
        expect(done.code == 2, "prepare says nothing", f"{table}: {done.out[-400:]}")
        raise Find("undamaged table refused by prepare", f"{table}: {done.err.strip()[-400:]}")
    found = int(head[1].replace(",", "")), int(head[2])
    expect(found == (len(table.rows), len(table.names)), "rows lost", f"{table}: prepare found {found}")
    numbers = [x for x, _ in table.values if x is not None]
    if len(set(numbers)) < 2:
        return
    line = next((line for line in done.out.splitlines() if re.match(r"x\s", line)), "")
    printed = re.match(r"x\s+number\s+([\d,]+)\s+(\S+) to (\S+), mean (\S+), std", line)
    if printed is None:
        raise Find("numbers not seen", f"{table}: {line!r}, of {sorted({row[table.x] for row in table.rows})[:8]}")
    values = float(printed[2]), float(printed[3]), float(printed[4])
    right = min(numbers), max(numbers), sum(numbers) / len(numbers)
    close = all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-4) for a, b in zip(values, right, strict=True))
    expect(close, "numbers changed", f"{table}: {values} where {right} is right")
    missing = int(printed[1].replace(",", ""))
    right_missing = len(table.rows) - len(numbers)
    expect(missing == right_missing, "missing miscounted", f"{table}: {missing}, not {right_missing}")


def check_predicted(table: Table, data: bytes, out: Path, stock: Stock) -> Counter[str]:
    """Compare every row of `out` with what was written; counts rows by outcome."""
    with out.open(newline="", encoding="utf-8") as stream:
        found = list(csv.reader(stream, delimiter=table.delimiter))
    width = len(table.names)
    header, found = found[0], found[1:]
    right = header[:width] == table.names and all(map(_APPENDED.fullmatch, header[width:]))
    expect(right, "names changed", f"{table}: {header}, not {table.names}")
    ragged = [row for row in found if len(row) != len(header)]
    expect(not ragged, "output is ragged", f"{table}: {ragged[:1]}")
    rows = table.rows if not table.damage else strictly_read(table, data)
    good = [row for row in found if not row[-1]]
    if rows is not None:
        seen = [row[:width] for row in found]
        if len(seen) != len(rows):
            kind = "rows lost" if len(seen) < len(rows) else "rows invented"
            raise Find(kind, f"{table}: {len(seen)} rows, not {len(rows)}")
        wrong = next(((a, b) for a, b in zip(seen, rows, strict=True) if a != b), None)
        expect(wrong is None, "cells changed", f"{table}: {wrong}")
    if not table.damage:
        # A row without any cell is rightly called bad.
        bad = [row for row in found if row[-1] and any(row[:width])]
        expect(not bad, "sound row called bad", f"{table}: {bad[:1]}")
    else:
        _check_undamaged_rows(table, found)
    values = dict(zip((row[0] for row in table.rows), table.values, strict=True))
    columns = header.index("prediction"), header.index("probability_a")
    whole = {tuple(row) for row in table.rows}
    for row in good:
        if tuple(row[:width]) in whole:
            _, probability = stock.known[values[row[0]]]
            printed = float(row[columns[1]].replace(",", "."))
            same = math.isclose(printed, probability, rel_tol=1e-3, abs_tol=1e-4)
            expect(same, "numbers misread", f"{table}: {row}, where {probability} is right")
    return Counter(back=len(good), bad=len(found) - len(good))


def _check_undamaged_rows(table: Table, found: list[list[str]]) -> None:
    """Each row that was not touched is there to the cell, or is among the bad rows."""
    width = len(table.names)
    index_of = {row[0]: index for index, row in enumerate(found) if not row[-1]}
    after = 0
    for number, row in enumerate(table.rows):
        index = index_of.get(row[0])
        if index is not None and found[index][:width] == row:
            expect(index >= after, "order changed", f"{table}: row {number}")
            after = index + 1
            continue
        if number in table.damaged:
            continue
        if index is not None:
            raise Find("cells changed", f"{table}: row {number}: {found[index][:width]}, not {row}")
        # Swallowed by a bad row: the next one after the last that came back has a reason.
        is_named = after < len(found) and any(each[-1] for each in found[after:])
        expect(is_named, "rows lost in silence", f"{table}: row {number} of {len(table.rows)}")
