"""Bad rows of a CSV: their lines, the reasons, and the policy for them."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc
import pyarrow.csv

from blitz.data.csv.formulas import escaped, unescaped
from blitz.data.csv.reading.row_names import RowNames
from blitz.errors import DataError
from blitz.storage import replacing

BadRowsPolicy = Literal["fail", "skip"]

# `row` is the row of the index, null where the row is not in it; `line` is the row's position (see `RowNames`): in a
# single CSV the physical line that the row starts on.
SCHEMA = pyarrow.schema(
    {
        "line": pyarrow.int64(),
        "column": pyarrow.string(),
        "value": pyarrow.string(),
        "reason": pyarrow.string(),
        "row": pyarrow.int64(),
    }
)

RECORD_HEADER = '"csv","line","column","value","reason"'
"""The first line of `bad_rows.csv`."""

NOT_A_NUMBER = "expected a number"

_NAMED = 3
_VALUE_CHARACTERS = 100


class BadRows:
    """Faults of a table in the order of its rows; a row with two faults is listed twice.

    `faults` has the columns of `SCHEMA`, and `names` are what messages call the files.
    """

    def __init__(self, names: RowNames, faults: pyarrow.Table) -> None:
        self.names = names
        self.faults = faults.sort_by("line")

    @property
    def csv_name(self) -> str:
        """What messages call the table."""
        return self.names.csv

    def __add__(self, other: "BadRows") -> "BadRows":
        """The faults of both, which are of the same table."""
        return BadRows(self.names, pyarrow.concat_tables([self.faults, other.faults]))

    def without_numbers_of(self, columns: Iterable[str]) -> "BadRows":
        """The faults without cells of these columns that are not numbers, for columns that are not used."""
        unread = pc.is_in(self.faults["column"], pyarrow.array(list(columns), pyarrow.string()))
        no_number = pc.equal(self.faults["reason"], NOT_A_NUMBER)
        return BadRows(self.names, self.faults.filter(pc.invert(pc.and_(unread, no_number))))

    def __len__(self) -> int:
        """Number of rows with faults."""
        return int(pc.count_distinct(self.faults["line"]).as_py())

    def rows(self) -> npt.NDArray[np.int64]:
        """Rows of the index with faults, ascending."""
        rows: npt.NDArray[np.int64] = np.unique(self.faults["row"].drop_null().to_numpy())
        return rows

    def messages(self, most: int) -> list[str]:
        """The first faults, as `train.csv:17: column 'age' holds 'abc'; expected a number`."""
        return [self._message(fault) for fault in self.faults.slice(0, most).to_pylist()]

    def _message(self, fault: dict[str, Any]) -> str:
        return f"{self.names.row(fault['line'])}: {_what(fault)}"

    def by_line(self) -> dict[int, str]:
        """The message of each bad row by its position, without the file and the line."""
        found: dict[int, str] = {}
        for fault in self.faults.to_pylist():
            line = fault["line"]
            found[line] = f"{found[line]}; {_what(fault)}" if line in found else _what(fault)
        return found

    def records(self) -> list[str]:
        """All faults as records of `bad_rows.csv`, each of one line."""
        files, lines = self.names.columns_of(self.faults["line"].to_pylist())
        faults = self.faults.select(["column", "value", "reason"])
        faults = faults.add_column(0, "line", pyarrow.array(lines, pyarrow.int64()))
        faults = faults.add_column(0, "csv", pyarrow.array(files, pyarrow.string()))
        # A line break within a value would split a record into two lines.
        values = pc.replace_substring(pc.replace_substring(faults["value"], "\r", "\\r"), "\n", "\\n")
        stream = io.BytesIO()
        faults = faults.set_column(3, "value", values)
        # This file is opened in spreadsheets, and its values are untrusted.
        for number in (0, 2, 3, 4):
            cells = [cell and escaped(cell) for cell in faults.column(number).to_pylist()]
            faults = faults.set_column(number, faults.column_names[number], pyarrow.array(cells, pyarrow.string()))
        pyarrow.csv.write_csv(faults, stream, pyarrow.csv.WriteOptions(include_header=False))
        return stream.getvalue().decode().split("\n")[:-1]

    def listed_in(self, folder: str | Path, *, suffix: str = "") -> Path:
        """The path that `list_in` writes."""
        return Path(folder).expanduser() / f"{self.stem}{suffix}.bad_rows.csv"

    @property
    def stem(self) -> str:
        """A name for files about the table: that of the CSV, or of the first file of several."""
        stem = re.sub(r"[*?\[\],]+", "", PurePosixPath(self.csv_name).stem)
        return stem or PurePosixPath(self.names.files[0]).stem

    def list_in(self, folder: str | Path, *, suffix: str = "") -> Path:
        """Write all faults to `<name of the CSV><suffix>.bad_rows.csv` in a folder; returns its path."""
        listed = self.listed_in(folder, suffix=suffix)
        with replacing(listed) as part:
            part.write_text("".join(f"{line}\n" for line in (RECORD_HEADER, *self.records())), "utf-8")
        return listed

    def enforce_policy(
        self, policy: BadRowsPolicy, *, total_rows: int, max_bad_fraction: float, flags: str = "--"
    ) -> npt.NDArray[np.int64]:
        """Apply `policy`: returns the rows of the index to leave out, ascending; `total_rows` includes bad rows.

        `flags` is the prefix of the flags that messages name.

        Raises:
            DataError: under `fail` if there are bad rows, under `skip` if they are more than `max_bad_fraction`; the
                message names the first three faults.
        """
        bad = len(self)
        first = "; ".join(self.messages(_NAMED))
        rest = f"; and {len(self.faults) - _NAMED} more faults" if len(self.faults) > _NAMED else ""
        share = f"{self.csv_name}: {bad} of {total_rows} rows {'is' if bad == 1 else 'are'} bad"
        if pc.any(pc.and_(pc.is_null(self.faults["column"]), pc.is_null(self.faults["row"]))).as_py():
            rest += f"; if the rows are right, set {flags}delimiter or {flags}quote"
        if bad and policy == "fail":
            raise DataError(f"{share}: {first}{rest}; mend them, or leave them out with {flags}bad-rows skip")
        if bad > max_bad_fraction * total_rows:
            raise DataError(f"{share}, more than {flags}max-bad-fraction {max_bad_fraction:g} allows: {first}{rest}")
        return self.rows()


def _what(fault: Mapping[str, Any]) -> str:
    if not fault["column"]:
        return str(fault["reason"])
    holds = f"holds {fault['value']!r}" if fault["value"] else "is empty"
    return f"column '{fault['column']}' {holds}; {fault['reason']}"


def fault_message(record: str) -> str:
    """The message of a record of `bad_rows.csv`, as `column 'age' holds 'abc'; expected a number`."""
    (fault,) = csv.DictReader(io.StringIO(f"{RECORD_HEADER}\n{record}"))
    return _what({name: unescaped(cell) for name, cell in fault.items()})


def faults_of(
    lines: npt.NDArray[np.int64],
    column: str | None,
    values: Sequence[str] | pyarrow.Array,
    reasons: str | Sequence[str],
    rows: npt.NDArray[np.int64] | Sequence[int] | None,
) -> pyarrow.RecordBatch:
    """Faults of one column, or of whole rows where that is None; `rows` is None for rows that the index lacks."""
    count = len(lines)
    return pyarrow.record_batch(
        [
            pyarrow.array(lines),
            pyarrow.array([column] * count, pyarrow.string()),
            pc.utf8_slice_codeunits(pyarrow.array(values, pyarrow.string()), 0, _VALUE_CHARACTERS),
            pyarrow.array([reasons] * count if isinstance(reasons, str) else reasons, pyarrow.string()),
            pyarrow.nulls(count, pyarrow.int64()) if rows is None else pyarrow.array(rows, pyarrow.int64()),
        ],
        schema=SCHEMA,
    )


def join_faults(names: RowNames, faults: Iterable[pyarrow.RecordBatch]) -> BadRows:
    """The bad rows of a table from batches of faults."""
    return BadRows(names, pyarrow.Table.from_batches(list(faults), SCHEMA))


def write_faults(faults: Iterable[pyarrow.RecordBatch], path: Path) -> None:
    """Write faults as an Arrow IPC file."""
    with pyarrow.ipc.new_file(str(path), SCHEMA) as writer:
        for batch in faults:
            writer.write_batch(batch)
