"""What the fuzzer writes is what it says that it wrote, and what its oracle is there for is found."""

import csv
import random
from pathlib import Path

import pytest

from bench.fuzz.commands import Find
from bench.fuzz.stock import CATEGORIES, NUMBERS, Stock
from bench.fuzz.tables import Table, check_predicted, encoded, random_table, strictly_read

SOUND = Stock(Path(), Path(), Path(), {(x, c): ("a", 0.5) for x in NUMBERS for c in CATEGORIES})


def predicted(table: Table) -> list[list[str]]:
    """What `blitz predict` writes for a sound table."""
    return [[*table.names, "prediction", "probability_a", "error"], *([*row, "a", "0.5", ""] for row in table.rows)]


def write(file: Path, table: Table, rows: list[list[str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=table.delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    return file


def test_an_undamaged_table_reads_back_to_the_cell_in_its_own_dialect() -> None:
    for seed in range(400):
        rng = random.Random(seed)
        table = random_table(rng, rows=rng.choice([1, 2, 20]))
        assert strictly_read(table, encoded(table, rng)) == table.rows, f"seed {seed}: {table}"


def test_a_right_output_passes_and_each_planted_fault_is_found(tmp_path: Path) -> None:
    for seed in range(30):
        table = random_table(random.Random(seed), rows=5)
        data = encoded(table, random.Random(seed))
        sound = predicted(table)
        check_predicted(table, data, write(tmp_path / "out.csv", table, sound), SOUND)
        for kind, planted in {
            "rows lost": [*sound[:2], *sound[3:]],
            "rows invented": [*sound, sound[-1]],
            "cells changed": [sound[0], ["r00000x", *sound[1][1:]], *sound[2:]],
            "sound row called bad": [*sound[:-1], [*sound[-1][:-1], "why"]],
            "numbers misread": [*sound[:-1], [*sound[-1][:-2], "0.6", ""]],
            "names changed": [["x", *sound[0][1:]], *sound[1:]],
        }.items():
            with pytest.raises(Find, match=kind):
                check_predicted(table, data, write(tmp_path / "out.csv", table, planted), SOUND)


def test_a_row_beside_a_damaged_one_may_not_vanish_in_silence(tmp_path: Path) -> None:
    rng = random.Random(3)
    table = random_table(rng, rows=5)
    table.damage = "extra cell"
    data = encoded(table, random.Random(1))
    (hurt,) = table.damaged
    rows = predicted(table)
    rows[hurt + 1][-1] = "the row has a cell too many"
    check_predicted(table, data, write(tmp_path / "out.csv", table, rows), SOUND)
    lost = [*rows[: hurt + 1], *rows[hurt + 2 :]]
    del lost[1]
    with pytest.raises(Find, match="rows lost in silence"):
        check_predicted(table, data, write(tmp_path / "out.csv", table, lost), SOUND)
