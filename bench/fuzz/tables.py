"""Tables in random dialects, some damaged: every row comes back to the cell, or is named as bad, or all is refused.

A table has an id in its first column, the two columns that the stock's model reads, and others that must come back as
they stood. What the model says of x and c is known, so that a row whose numbers were misread is found, too.
"""

import csv
import math
import random
import re
from collections import Counter
from pathlib import Path

from bench.fuzz.commands import Commands, Done, Find, expect
from bench.fuzz.stock import HERE, Stock
from bench.fuzz.table_files import DAMAGES, Table, encoded, packed, random_table, strictly_read

_APPENDED = re.compile(r"prediction|probability(_.*)?|error")


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
    flags = [*(word for name, value in options.items() for word in (f"--{name}", value)), *table.flags()]
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
    if "index column" in table.extras:
        expect(found[0][0] == "", "names changed", f"{table}: {found[0][:2]}")
        found = [row[1:] for row in found]
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
        bad = [row for row in found if row[-1]]
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
