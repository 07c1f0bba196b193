import csv
import io
from typing import Any

import numpy as np
import torch

from blitz.outputs.class_tables import accuracies, accuracies_csv, confusion, confusion_csv
from blitz.outputs.metrics import ClassAccuracy, Classification


def matrix_of(classes: int) -> Any:
    """Most are right, and class 1 is often predicted as class 0."""
    counts = np.eye(classes, dtype=int) * 950
    counts[1, 0] = 50
    return counts.tolist()


def names(count: int) -> list[str]:
    return [f"a name that is longer than most, {number}" for number in range(count)]


def test_a_small_matrix_has_its_names_above_and_beside() -> None:
    assert confusion(["ant", "bee"], [[3, 0], [1, 12]], columns=80).splitlines() == [
        "confusion matrix: truth down, prediction across",
        "     ant  bee",
        "ant    3    .",
        "bee    1   12",
    ]


def test_names_that_do_not_fit_above_are_numbered() -> None:
    lines = confusion(names(12), matrix_of(12), columns=100).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[1].split() == [str(number) for number in range(12)]
    assert lines[3].split()[:2] == ["1", "a"]
    assert lines[3].split()[-12:-9] == ["50", "950", "."]
    # Counts stand below their numbers.
    assert lines[1].index(" 0") + 1 == lines[3].index(" 50") + 2


def test_a_matrix_that_fits_no_terminal_is_its_worst_mistakes() -> None:
    lines = confusion(names(100), matrix_of(100), columns=120).splitlines()
    assert lines == [
        "confusion matrix: of 100 classes, the most frequent mistakes",
        "    50  a name that is longer t…  predicted as a name that is longer t…",
    ]


def test_of_many_classes_the_worst_are_listed_and_all_are_in_the_csv() -> None:
    classes = [ClassAccuracy(f"class {number}", 1000, number * 10) for number in range(50)]
    lines = accuracies(ClassAccuracy("all", 50_000, 12_250), classes).splitlines()
    assert lines[0].startswith("accuracy, the lowest 20 of 50")
    assert [line.split("  ")[0] for line in lines[1:4]] == ["all", "class 0", "class 1"]
    assert len(lines) == 22
    assert len(accuracies_csv(classes).splitlines()) == 51


def test_csvs_hold_what_was_counted() -> None:
    metrics = Classification(('says "x, y"', "never"))
    rows = list(csv.DictReader(io.StringIO(confusion_csv(metrics.classes, [[4, 1], [0, 0]]).decode())))
    assert rows == [
        {"truth": 'says "x, y"', 'says "x, y"': "4", "never": "1"},
        {"truth": "never", 'says "x, y"': "0", "never": "0"},
    ]
    by_class = [ClassAccuracy(metrics.classes[0], 5, 4), ClassAccuracy("never", 0, 0)]
    first, second = csv.DictReader(io.StringIO(accuracies_csv(by_class).decode()))
    assert (first["rows"], first["right"], first["accuracy"]) == ("5", "4", "0.8")
    assert float(first["low"]) < 0.8 < float(first["high"])
    assert second["accuracy"] == second["low"] == ""


def test_names_of_classes_break_no_table() -> None:
    odd = ("a\nb", "\x1b[31mred", "\u202eback")
    metrics, sums = Classification(odd), {"confusion": torch.tensor([[3, 0, 1], [0, 2, 0], [0, 0, 5]])}
    for columns in (200, 50, 20):
        table = confusion(odd, sums["confusion"].tolist(), columns=columns)
        assert all(line.isprintable() for line in table.split("\n"))
        assert "a\\nb" in table
    table = accuracies(metrics.total(sums), metrics.by_class(sums))
    assert [line.split()[0] for line in table.split("\n")[2:]] == ["a\\nb", "\\x1b[31mred", "\\u202eback"]
