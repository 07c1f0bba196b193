from collections.abc import Iterator

import pytest
import torch

from blitz.launch.local.in_process import threads_of
from blitz.recipes.digits import Digits
from blitz.recipes.table_csv import TableCsv


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def step(self, number: int) -> None: ...

    def loss(self, value: float) -> None: ...


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_steps_are_computed_on_one_thread_which_is_reported() -> None:
    shown = Lines()
    with threads_of(TableCsv(global_batch_size=64), shown):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    assert shown.lines == ["computes on 1 of 2 threads, as its steps are small; OMP_NUM_THREADS overrides this"]


def test_large_steps_other_recipes_and_a_number_that_was_asked_for_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = Lines()
    for recipe in (TableCsv(global_batch_size=1024), Digits()):
        with threads_of(recipe, shown):
            assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with threads_of(TableCsv(global_batch_size=64), shown):
        assert torch.get_num_threads() == 2
    assert not shown.lines
