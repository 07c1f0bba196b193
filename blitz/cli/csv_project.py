"""What a new project's recipe says about a CSV, from a look at its columns."""

import json
import math
import tempfile
from pathlib import Path

from blitz.cli.prepare import summary
from blitz.data.csv.reading.columns import ColumnReport
from blitz.data.csv.reading.head import read_head
from blitz.data.csv.reading.index import CsvIndex, index_csv
from blitz.data.csv.reading.reader import CsvOptions
from blitz.data.csv.reading.source_files import files_of
from blitz.errors import require
from blitz.storage import absolute, exists, name_of
from blitz.uris import is_uri
from blitz.visible import visible


def csv_values(csv: str, target: str | None) -> dict[str, str]:
    """What the templates of a CSV project are filled with.

    Raises:
        UserError: if the CSV cannot be read, has no such column, or a text for its target.
    """
    with tempfile.TemporaryDirectory(prefix="blitz-init-") as cache:
        names = [*read_head(files_of(csv, Path(cache))[0], CsvOptions()).columns]
        if target is None:
            target = names[-1]
        require(target in names, f"--target: {csv} has no column '{target}'; it has: {', '.join(names)}")
        index = index_csv(csv, cache, CsvOptions(label_columns=(target,)))
        bad = len(index.bad_rows())
    learned = index.column(target)
    require(
        learned.type != "text",
        f"--target: column '{target}' of {csv} holds text, which is no class; name another column",
    )
    ignored = [one.name for one in index.columns if one.name != target and one.numbers_rows]
    width = max(len(visible(name)) for name in names)
    lines = [f"#   {_described(one, width, target, ignored)}".rstrip() for one in index.columns]
    return {
        "file": visible(name_of(csv)),
        "csv": _literal(_located(csv)),
        "target": _literal(target),
        "ignore": f"({''.join(f'{_literal(name)},' for name in ignored)})",
        "rows": f"{index.total_rows:,} rows, {index.described()}",
        "columns": "\n".join(lines),
        "total_rows": str(index.total_rows),
        "bad_rows": _bad_rows(index, bad),
    }


def _located(csv: str) -> str:
    """The CSV wherever the project is: its absolute path, or those of a list."""
    parts = [csv] if is_uri(csv) or exists(csv) else csv.split(",")
    return ",".join(part if is_uri(part) else absolute(part.strip()) for part in parts)


def _bad_rows(index: CsvIndex, bad: int) -> str:
    if not bad:
        return ""
    most = math.ceil(100 * bad / index.total_rows) / 100
    more = f"\n        max_bad_fraction={most}," if most > 0.01 else ""
    return f'\n        # {bad:,} rows are bad: `blitz prepare` lists them.\n        bad_rows="skip",{more}'


def _described(column: ColumnReport, width: int, target: str, ignored: list[str]) -> str:
    if column.name == target:
        use = "the target"
    elif column.name in ignored:
        use = "ignored: it numbers the rows"
    elif column.type == "text":
        use = "not learned from: every text is another one"
    else:
        use = ""
    missing = f"{column.missing:,} missing" if column.missing else ""
    about = "; ".join(filter(None, [summary(column), missing, use]))
    return f"{visible(column.name):{width}}  {column.type:8}  {about}"


def _literal(text: str) -> str:
    """Text as a Python string in double quotes: JSON's strings are such."""
    return json.dumps(text, ensure_ascii=False)
