"""Rows of an index lie side by side: columns of every type come back as they went in, and wide rows are cheap."""

from pathlib import Path

import numpy as np

from blitz.data.csv.reading.layout import LINE, matrix_of
from blitz.data.csv.table import CsvTable
from tests.data.csv.reading.test_index import indexed


def test_columns_of_all_types_in_any_order_come_back_from_the_matrices(tmp_path: Path) -> None:
    rows = "".join(f"w{i},{i},{'xy'[i % 2]},{i / 4},{'' if i % 3 else 'z'}\n" for i in range(60))
    index = indexed(tmp_path, "text,n,c,m,d\n" + rows, types={"d": "category"})
    (batch,) = index.batches(["m", "d", "text", LINE, "n"])
    assert batch.schema.names == ["m", "d", "text", LINE, "n"]
    assert batch["m"].to_pylist() == [i / 4 for i in range(60)]
    assert batch["d"].to_pylist() == [-1 if i % 3 else 0 for i in range(60)]
    assert batch[LINE].to_pylist() == [*range(2, 62)]
    columns = CsvTable(index, ["m", "c", "text"]).__getitems__(np.array([7, 0, 59]))
    assert [*columns] == ["m", "c", "text"]
    assert columns["m"].tolist() == [7 / 4, 0, 59 / 4]
    assert columns["c"].tolist() == [1, 0, 1]
    assert columns["text"].tolist() == ["w7", "w0", "w59"]


def test_a_batch_of_a_wide_table_is_gathered_by_its_rows_from_one_matrix(tmp_path: Path) -> None:
    rows, width = 40, 2000
    numbers = np.arange(rows * width).reshape(rows, width) % 911 / 4
    header = ",".join(f"c{i}" for i in range(width))
    index = indexed(tmp_path, header + "\n" + "\n".join(",".join(map(str, row)) for row in numbers.tolist()) + "\n")
    assert {report.type for report in index.columns} == {"number"}
    (batch,) = index.files[0].batches()
    assert batch.num_columns == 2
    table = CsvTable(index, [f"c{i}" for i in range(width)])
    chosen = np.array([39, 3, 17])
    np.testing.assert_array_equal(table.number_matrix(chosen), numbers[chosen])
    # A view of the file, as rows lie in it.
    matrix = matrix_of(batch, "number")
    assert matrix.flags.c_contiguous
    assert not matrix.flags.owndata
    some = CsvTable(index, ["c7", "c1999"])
    np.testing.assert_array_equal(some.number_matrix(chosen), numbers[chosen][:, [7, 1999]])
