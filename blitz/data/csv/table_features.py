"""Which columns of a table are learned from, and how: chosen and fitted on its training rows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from blitz.data.csv.date_features import DateFeature, DateNumbers, date_columns, date_features
from blitz.data.csv.features import CategoryFeature, NumberFeature, identifies_rows
from blitz.data.csv.quantiles import quantiles_of
from blitz.data.csv.reading.columns import ColumnReport
from blitz.errors import DataError
from blitz.visible import visible

if TYPE_CHECKING:
    from blitz.data.csv.tabular import TrainingTable


def features_of(
    table: "TrainingTable", reports: Mapping[str, ColumnReport]
) -> tuple[tuple[NumberFeature, ...], tuple[CategoryFeature, ...], tuple[DateFeature, ...]]:
    """What is learned from; prints which columns are not, and how some are read.

    Raises:
        DataError: if there is no such column.
    """
    data, index, train = table.data, table.index, table.parts.train
    by, ignored = data.split_by, {*data.learned, *data.ignore, *data.text}
    left_out: dict[str, list[str]] = {}
    if by.kind == "group" and by.column not in ignored:
        # No value of it is both trained and evaluated on.
        left_out["rows are split by its groups"] = [by.column]
        ignored.add(by.column)
    columns = [report for report in reports.values() if report.name not in ignored]
    words = [one.name for one in columns if one.type != "number" and not one.is_constant and one.name not in data.types]
    evidence = date_columns(index, words, train)
    dates, of_dates = date_features(index, evidence, train)
    numeric = [one for one in columns if one.mean is not None]
    quantiles = quantiles_of(index, [one.name for one in numeric], train, table.seed)
    numbers: list[NumberFeature] = []
    categories: list[CategoryFeature] = []
    for report in columns:
        # A constant that is missing in some rows may still be informative.
        if report.count and report.is_constant and not report.missing:
            left_out.setdefault("they are the same in all rows", []).append(report.name)
        elif report.name in evidence:
            continue
        elif report.mean is not None:
            numbers.append(NumberFeature.fitted(report, quantiles[report.name], index.writings[report.name]))
        elif identifies_rows(report) and report.name not in data.types:
            left_out.setdefault("most rows have a value of their own", []).append(report.name)
        elif report.values:
            categories.append(CategoryFeature.fitted(report))
        else:
            left_out.setdefault("they are text or empty", []).append(report.name)
    levels = quantiles_of(DateNumbers(index, dates), list(of_dates), train, table.seed)
    numbers += [NumberFeature.fitted(report, levels[name]) for name, report in of_dates.items()]
    if not (numbers or categories or data.text):
        raise DataError(
            f"{index.csv} has no column to learn '{data.learned[0]}' from: numbers and categories are learned from, "
            f"and there is {', '.join(name for names in left_out.values() for name in names) or 'none'}; declare types "
            "with --data.types COLUMN category"
        )
    for why, names in left_out.items():
        print(visible(f"{index.csv}: not learned from, because {why}: {', '.join(names)}"))
    for one in dates:
        first = {"dmy": "; ambiguous: the day is read first", "mdy": "; ambiguous: the month is read first"}
        doubt = first.get(one.order, "") if evidence[one.name].is_ambiguous else ""
        print(visible(f"{index.csv}: column '{one.name}': dates, as {', '.join(one.parts)}{doubt}"))
    for report in (*(reports[name] for name in data.learned), *columns):
        if report.note and report.name not in evidence:
            print(visible(f"{index.csv}: column '{report.name}': {report.note}"))
    return tuple(numbers), tuple(categories), tuple(dates)
