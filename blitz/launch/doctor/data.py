"""Check that a node can read the rows of a run. Nothing here imports torch or Ray."""

from typing import Any

import numpy as np

from blitz.errors import UserError, first_line
from blitz.launch.doctor.finding import Finding


def check_rows(*datasets: Any) -> Finding:
    """Whether the first and the last row of each data set can be fetched here."""
    for dataset in datasets:
        if len(dataset):
            try:
                dataset.__getitems__(np.array([0, len(dataset) - 1]))
            except (OSError, UserError) as error:
                text = f"{first_line(error)}; all nodes must see the data, in a folder that they mount or at a URI"
                return Finding("error", "data", text)
    rows = " and ".join(f"{len(dataset):,}" for dataset in datasets)
    return Finding("ok", "data", f"{rows} rows, and they can be read")
