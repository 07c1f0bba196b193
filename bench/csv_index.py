"""Index a CSV, beside a plain `pyarrow.csv.read_csv` of the same file: seconds and peak memory of each.

    python bench/csv_index.py [--rows 1000000] [--repeats 3]

The file has numbers, categories (some in quotes, with a delimiter) and text, 56 bytes a row. Each reading is a process
of its own, and the two take turns, so that what else the machine does falls on both.
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
began = time.perf_counter()
{work}
seconds = time.perf_counter() - began
peak = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps([seconds, peak]))
"""
_READ = _TIMED.format(work="rows = len(pyarrow.csv.read_csv(csv))")
_INDEX = _TIMED.format(work="rows = index_csv(csv, cache, CsvOptions(label_columns=('label',))).rows")


def main() -> None:
    """Make the file, read it both ways in turn, and print the best of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder, "rows.csv")
        write_rows(csv, options.rows)
        print(f"{options.rows:,} rows, {csv.stat().st_size / 2**20:,.0f} MiB")
        reads, indexes = [], []
        for turn in range(options.repeats):
            reads.append(_run(_READ, csv, Path(folder, "unused")))
            indexes.append(_run(_INDEX, csv, Path(folder, f"cache{turn}")))
        again = _run(_INDEX, csv, Path(folder, "cache0"))
    (read_s, read_mib), (index_s, index_mib) = min(reads), min(indexes)
    for name, times in (("read_csv", reads), ("index_csv", indexes)):
        print(f"{name:10} best {min(times)[0]:6.2f} s, all " + ", ".join(f"{seconds:.2f}" for seconds, _ in times))
    print(f"{'':10} at {read_s / index_s:.2f} times the speed of read_csv")
    print(f"peak memory {index_mib:,.0f} MiB, read_csv {read_mib:,.0f} MiB")
    print(f"from cache {again[0]:.4f} s")


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


def _run(code: str, csv: Path, cache: Path) -> tuple[float, float]:
    done = subprocess.run([sys.executable, "-c", code, csv, cache], check=True, capture_output=True, text=True)
    seconds, mebibytes = json.loads(done.stdout)
    return seconds, mebibytes


if __name__ == "__main__":
    main()
