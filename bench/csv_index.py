"""Index a CSV, beside a plain `pyarrow.csv.read_csv` of the same file: seconds and peak memory of each.

    python bench/csv_index.py [--rows 1000000] [--repeats 3] [--shards 40]

The file has numbers, categories (some in quotes, with a delimiter) and text, 56 bytes a row. Each reading is a process
of its own, and they take turns, so that what else the machine does falls on all. With --shards the same rows are also
indexed from so many files, as CSV and as Parquet.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet

_ROWS_A_BATCH = 500_000

# Startup and imports are no part of the seconds, and part of the memory. Linux counts in KiB; `ru_maxrss` would take
# over the peak of this process.
_TIMED = """
import json, re, sys, time
from pathlib import Path
import pyarrow.csv
from blitz.data.csv.reading.index import index_csv
from blitz.data.csv.reading.reader import CsvOptions
csv, cache = sys.argv[1:]
began, began_cpu = time.perf_counter(), time.process_time()
{work}
seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
peak = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps([seconds, peak, cpu]))
"""
_READ = _TIMED.format(work="rows = len(pyarrow.csv.read_csv(csv))")
_INDEX = _TIMED.format(work="rows = index_csv(csv, cache, CsvOptions(label_columns=('label',))).rows")


def main() -> None:
    """Make the file, read it both ways in turn, and print the best of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shards", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder, "rows.csv")
        write_rows(csv, options.rows)
        print(f"{options.rows:,} rows, {csv.stat().st_size / 2**20:,.0f} MiB")
        ways = {"read_csv": (_READ, str(csv)), "index_csv": (_INDEX, str(csv))}
        if options.shards:
            for kind in ("csv", "parquet"):
                write_shards(Path(folder), options.rows, options.shards, kind)
                ways[f"{options.shards} {kind}"] = (_INDEX, f"{folder}/shards/*.{kind}")
        found: dict[str, list[Timed]] = {name: [] for name in ways}
        for turn in range(options.repeats):
            for name, (code, source) in ways.items():
                found[name].append(_run(code, source, Path(folder, f"cache{turn} {name}")))
        again = _run(_INDEX, str(csv), Path(folder, "cache0 index_csv"))
    for name, times in found.items():
        best = min(times)
        print(
            f"{name:12} best {best[0]:6.2f} s, {min(one[2] for one in times):6.2f} s of CPU, peak {best[1]:,.0f} MiB; "
            f"all {', '.join(f'{one[0]:.2f}' for one in times)}"
        )
    print(f"index_csv at {min(found['read_csv'])[0] / min(found['index_csv'])[0]:.2f} times the speed of read_csv")
    print(f"from cache {again[0]:.4f} s")


def write_shards(folder: Path, rows: int, shards: int, kind: str) -> None:
    """Write the same rows as so many files of a kind, all with rows."""
    whole = pyarrow.csv.read_csv(folder / "rows.csv")
    (folder / "shards").mkdir(exist_ok=True)
    for number in range(shards):
        start, end = rows * number // shards, rows * (number + 1) // shards
        path = folder / "shards" / f"{number:05}.{kind}"
        part = whole.slice(start, end - start)
        if kind == "csv":
            pyarrow.csv.write_csv(part, path)
        else:
            pyarrow.parquet.write_table(part, path)


def write_rows(csv: Path, rows: int) -> None:
    """Write the same rows each time."""
    rng = np.random.default_rng(0)
    cities = np.array(["Paris", "New York, NY", "Tokyo", "Lima"])
    labels = np.array(["cat", "dog", "bird"])
    writer = None
    for start in range(0, rows, _ROWS_A_BATCH):
        count = min(_ROWS_A_BATCH, rows - start)
        table = pyarrow.table(
            {
                "id": np.arange(start, start + count),
                "x": rng.normal(size=count).round(5),
                "y": rng.normal(size=count).round(5),
                "age": rng.integers(0, 100, count),
                "city": cities[rng.integers(0, len(cities), count)],
                "label": labels[rng.integers(0, len(labels), count)],
                "name": [f"user{number}" for number in rng.integers(0, 1_000_000, count)],
            }
        )
        writer = writer or pyarrow.csv.CSVWriter(csv, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


Timed = tuple[float, float, float]
"""Seconds, MiB, and seconds of CPU."""


def _run(code: str, source: str, cache: Path) -> Timed:
    done = subprocess.run([sys.executable, "-c", code, source, cache], check=True, capture_output=True, text=True)
    seconds, mebibytes, cpu = json.loads(done.stdout)
    return seconds, mebibytes, cpu


if __name__ == "__main__":
    main()
