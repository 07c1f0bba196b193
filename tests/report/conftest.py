from collections.abc import Iterator

import pytest

from tests.browser import Browser, chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for the whole session."""
    with chromium() as started:
        yield started
