import os
from pathlib import Path

import pytest

from tests.data.csv.reading.random_tables import random_table, what_became_of

# A long run: BLITZ_RANDOM_TABLES=10000 python -m pytest tests/data/csv/reading/test_random_tables.py
TABLES = int(os.environ.get("BLITZ_RANDOM_TABLES", "300"))
SHARES = 5


@pytest.mark.parametrize("share", range(SHARES))
def test_a_random_table_in_a_random_dialect_is_read_to_the_cell_or_refused(tmp_path: Path, share: int) -> None:
    outcomes = [what_became_of(random_table(seed), tmp_path) for seed in range(share, TABLES, SHARES)]
    read = [bad for outcome, bad in outcomes if outcome == "read"]
    # Refused are mostly tables whose names are all numbers, and single quotes that may be apostrophes.
    assert len(read) > 0.8 * len(outcomes)
    assert sum(bad == 0 for bad in read) > 0.99 * len(read)
