"""Dates in cells of text."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow
import pytest

from blitz.data.csv.dates import DateEvidence, DateOrder, seconds_of


def read(order: DateOrder, *cells: str | None) -> list[str | None]:
    seconds = seconds_of(pyarrow.array(cells, pyarrow.string()), order)
    start = datetime(1970, 1, 1)
    return [None if np.isnan(one) else (start + timedelta(seconds=one)).isoformat(" ") for one in seconds]


def evidence_of(*batches: list[str | None]) -> DateEvidence:
    evidence = DateEvidence()
    for cells in batches:
        evidence.add(pyarrow.array(cells, pyarrow.string()))
    return evidence


def test_dates_are_read_in_their_order_with_times_halves_of_the_day_and_zones() -> None:
    assert read("ymd", "2024-01-31", "2024-02-29T13:05:07.250Z", "1969/12/31", "2023-12-31 23:59+01:00") == [
        "2024-01-31 00:00:00",
        "2024-02-29 13:05:07.250000",
        "1969-12-31 00:00:00",
        "2023-12-31 22:59:00",
    ]
    assert read("dmy", "31.01.2024", "1/2/99 12:30 AM", "13 March 2020", "Tue, 05 Nov 1994 08:15:30 GMT") == [
        "2024-01-31 00:00:00",
        "1999-02-01 00:30:00",
        "2020-03-13 00:00:00",
        "1994-11-05 08:15:30",
    ]
    assert read("mdy", "01/31/2024 5:00pm", "March 3rd, 2020") == ["2024-01-31 17:00:00", "2020-03-03 00:00:00"]


@pytest.mark.parametrize("cell", ["2023-02-29", "2023-13-01", "2023-00-10", "2023-01-01 10:60", "1.5", "", None, "abc"])
def test_what_is_no_date_is_none(cell: str | None) -> None:
    assert read("ymd", cell) == [None]


def test_all_cells_decide_whether_the_day_or_the_month_comes_first() -> None:
    doubtful: list[str | None] = ["01/02/2020", "03/04/2021", "", None]
    assert (evidence_of(doubtful).order, evidence_of(doubtful).is_ambiguous) == ("dmy", True)
    shown = evidence_of(doubtful, ["01/22/2020"])
    assert (shown.order, shown.is_ambiguous) == ("mdy", False)


def test_one_cell_in_ten_may_be_no_date_and_more_make_it_another_column() -> None:
    dates: list[str | None] = [f"2020-01-{day:02}" for day in range(1, 19)]
    assert evidence_of([*dates, "soon", "later", "?"]).order == "ymd"
    assert evidence_of([*dates, "soon", "later", "never"]).order is None
    assert evidence_of(["1.5", "2.5"]).order is None
