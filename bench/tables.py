"""`table_csv` beside gradient boosting, random forests and linear models with their default settings, as a table.

    pip install '.[bench]'
    python -m bench.tables --data DIR [--only NAME …] [--methods METHOD …] [--splits 3] [--most-rows N]

DIR holds CSVs and `targets.csv` with the columns `file,target,task`; `python -m bench.table_data DIR` writes such a
folder. Every method learns the same 80 % of the rows (stratified for classes) and is judged on the other 20 %, by
accuracy or RMSE, once for each seed of the split. None sees the test rows before: `blitz` trains on all training
rows and its last step is judged. CPU seconds are those of training and of predicting the test rows, without imports,
on one thread. What has been computed is kept in `--results` and not computed again; --again computes it anew.

Flags of a variant of `table_csv` follow its name: --methods blitz "blitz --model.name mlp".
"""

import argparse
import contextlib
import hashlib
import io
import json
import shlex
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.table_peers import PEERS, judge, split_of


@dataclass(frozen=True)
class Table:
    """A CSV and what is to be learned from it."""

    csv: Path
    target: str
    classifies: bool

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.csv.stem


def tables(folder: Path) -> list[Table]:
    """The tables of a folder, as its targets.csv names them."""
    lines = (folder / "targets.csv").read_text().split()[1:]
    named = (line.split(",") for line in lines)
    return [Table(folder / file, target, task == "classification") for file, target, task in named]


class Results:
    """Scores and CPU seconds by method, table, seed and rows, in a file of a JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.found = {tuple(key): tuple(value) for key, value in map(json.loads, lines)}

    def add(self, key: tuple[Any, ...], score: float, seconds: float) -> None:
        """Keep one."""
        self.found[key] = score, seconds
        with self.path.open("a") as file:
            file.write(json.dumps([key, [score, round(seconds, 3)]]) + "\n")


def blitz(flags: Sequence[str], train: Any, test: Any, table: Table, seed: int) -> tuple[float, float]:
    """The accuracy or RMSE of the last step of a run of `table_csv`, and its CPU seconds."""
    # Both are imported by the first run of a process, which CPU seconds leave out.
    import tensorboardX  # noqa: F401
    import torch._dynamo  # noqa: F401

    from blitz.cli.train import read_settings
    from blitz.cli.train import train as train_recipe

    with tempfile.TemporaryDirectory() as folder:
        for name, rows in {"train": train, "test": test}.items():
            rows.to_csv(f"{folder}/{name}.csv", index=False)
        words = f"--data.train-csv {folder}/train.csv --data.val-csv {folder}/test.csv --data.cache {folder}/cache"
        words += f" --storage {folder}/runs --no-report --seed {seed} --data.target"
        task = ["--data.task", "classification" if table.classifies else "regression"]
        settings = read_settings(["table_csv", *words.split(), table.target, *task, *flags], prog="blitz train")
        before = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            # Not the metrics of the best checkpoint, which the test rows would have chosen.
            metrics = train_recipe(settings)["last_metrics"]
        return metrics["val/accuracy" if table.classifies else "val/rmse"], time.process_time() - before


def measure(
    found: Results, table: Table, methods: Iterable[str], *, splits: int, most_rows: int | None, again: bool
) -> None:
    """Every method on every split of a table, unless that is among the results."""
    import pandas as pd

    # As table_csv reads them, "NA" and "None" are words in a column of words.
    frame = pd.read_csv(table.csv, keep_default_na=False, na_values=["", "nan", "NaN"])
    content = hashlib.sha256(table.csv.read_bytes()).hexdigest()[:12]
    for seed in range(splits):
        train, test = split_of(frame, table.target, classifies=table.classifies, seed=seed, most_rows=most_rows)
        for method in methods:
            key = method, table.name, seed, most_rows, content
            if key in found.found and not again:
                continue
            if method in PEERS:
                score, seconds = judge(method, train, test, table.target, classifies=table.classifies, seed=seed)
            else:
                score, seconds = blitz(shlex.split(method)[1:], train, test, table, seed)
            found.add(key, score, seconds)
            print(f"{table.name:18} {method:30} split {seed}: {score:.4g} in {seconds:.1f} s", flush=True)


def means(
    found: Results, of: Sequence[Table], methods: Sequence[str], most_rows: int | None
) -> dict[str, list[list[float]]]:
    """For each table that all methods have, their errors on each split: rows are methods."""
    errors: dict[str, list[list[float]]] = {}
    for table in of:
        scores: dict[str, dict[int, float]] = {method: {} for method in methods}
        for (method, name, seed, rows, _), (score, _) in found.found.items():
            if method in scores and name == table.name and rows == most_rows:
                scores[method][seed] = 1 - score if table.classifies else score
        seeds = set.intersection(*(set(each) for each in scores.values()))
        if seeds:
            errors[table.name] = [[scores[method][seed] for seed in sorted(seeds)] for method in methods]
    return errors


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, the smallest; equal values share the mean of theirs."""
    return [sum(other < one for other in values) + (sum(other == one for other in values) + 1) / 2 for one in values]


def show(found: Results, of: Sequence[Table], methods: Sequence[str], most_rows: int | None) -> None:
    """Print the table: mean scores, then mean rank, mean normalised error and CPU seconds."""
    errors = means(found, of, methods, most_rows)
    print("| table | metric | " + " | ".join(methods) + " |\n|" + "---|" * (len(methods) + 2))
    by_name = {table.name: table for table in of}
    all_ranks, normalised = [], []
    for name, each in errors.items():
        classifies = by_name[name].classifies
        mean = [statistics.fmean(one) for one in each]
        best, worst = min(mean), max(mean)
        shown = [f"{1 - one:.4f}" if classifies else f"{one:.5g}" for one in mean]
        cells = [f"**{text}**" if one == best else text for text, one in zip(shown, mean, strict=True)]
        print(f"| {name} | {'accuracy' if classifies else 'RMSE'} | " + " | ".join(cells) + " |")
        all_ranks += [ranks(split) for split in zip(*each, strict=True)]
        normalised.append([(one - best) / ((worst - best) or 1) for one in mean])
    seconds = [
        [
            value[1]
            for key, value in found.found.items()
            if key[0] == method and key[1] in errors and key[3] == most_rows
        ]
        for method in methods
    ]
    for label, row in (
        ("mean rank", [f"{statistics.fmean(one):.2f}" for one in zip(*all_ranks, strict=True)]),
        ("mean normalised error", [f"{statistics.fmean(one):.3f}" for one in zip(*normalised, strict=True)]),
        ("median CPU s", [f"{statistics.median(one):.1f}" for one in seconds]),
        ("all CPU s", [f"{sum(one):.0f}" for one in seconds]),
    ):
        print(f"| {label} | | " + " | ".join(row) + " |")


def main() -> None:
    """Compute what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of CSVs with a targets.csv")
    parser.add_argument("--only", nargs="+", help="names of tables")
    parser.add_argument("--methods", nargs="+", default=["blitz", *PEERS])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--most-rows", type=int, help="a sample of the rows of larger tables")
    parser.add_argument("--results", type=Path, default=Path("table_results.jsonl"))
    parser.add_argument("--again", nargs="*", default=[], help="methods to compute anew")
    asked = parser.parse_args()
    found = Results(asked.results)
    chosen = [table for table in tables(asked.data) if not asked.only or table.name in asked.only]
    chosen.sort(key=lambda table: table.csv.stat().st_size)
    for table in chosen:
        for again in (True, False):
            methods = [method for method in asked.methods if (method in asked.again) == again]
            measure(found, table, methods, splits=asked.splits, most_rows=asked.most_rows, again=again)
    show(found, chosen, asked.methods, asked.most_rows)


if __name__ == "__main__":
    main()
