"""$title"""

from dataclasses import dataclass

from blitz.data.csv.tabular import CsvData
from blitz.recipes.table_csv import Layers, TableCsv

# What was found in $csv:
$columns


@dataclass(frozen=True)
class $class_name(TableCsv):
    """$title"""

    epochs: int = $epochs
    data: CsvData = CsvData(
        train_csv="$csv",
        target="$target",$ignore
        val_fraction=0.2,
    )
    model: Layers = Layers(hidden=(64, 32), dropout=0.1)
