import os
from pathlib import Path

import pytest


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data sets: BLITZ_TEST_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("BLITZ_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}; name their folder with BLITZ_TEST_DATA")
    return folder
