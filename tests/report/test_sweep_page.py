"""The page of a sweep: what its charts show of a sweep's files."""

from typing import Any

import pytest

from blitz.report.page import sweep_page
from blitz.report.sweep_page import Sweep


def sweep(curves: list[list[float]], mode: str = "min", importance: dict[str, float] | None = None) -> Sweep:
    rows = [{"trial": str(n), "state": "finished", "best": str(min(curve))} for n, curve in enumerate(curves)]
    return Sweep(
        name="one",
        uri="/runs/one",
        settings={"metric": "val/loss", "mode": mode},
        rows=rows,
        varied=[],
        curves={str(n): list(enumerate(curve)) for n, curve in enumerate(curves)},
        best=None,
        importance=importance or {},
        command="",
    )


def scale(*args: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = sweep_page(sweep(*args, **more)).charts["trials"]["encoding"]["y"]["scale"]
    return found


CURVES = [[1.0, 0.8, 0.6, 0.5], [1.1, 0.9, 0.7, 0.6], [1.0, 0.7, 0.5, 0.4]]


def test_a_few_bad_values_do_not_squash_the_curves() -> None:
    assert scale(CURVES) == {"zero": False}
    assert scale([*CURVES, [900.0, 5000.0, 1.2, 1.0]])["type"] == "log"
    # Values below 0 have no logarithm.
    spiked = scale([[value - 2 for value in curve] for curve in CURVES] + [[900.0, 5000.0, -1.0, -1.2]])
    low, high = spiked["domain"]
    assert low == pytest.approx(-1.6)
    assert -0.9 <= high < 1
    falling = scale([[0.5, 0.6, 0.7, 0.8], [0.5, 0.7, 0.8, 0.9], [0.4, -1e6, 0.5, 0.6]], mode="max")
    low, high = falling["domain"]
    assert (high, low) == (0.9, pytest.approx(0.1, abs=0.05))


def test_what_decides_is_shown_as_far_as_it_is_known() -> None:
    assert "importance" not in sweep_page(sweep(CURVES)).charts
    page = sweep_page(sweep(CURVES, importance={"optim.lr": 0.9, "optim.name": 0.1}))
    assert [bar["setting"] for bar in page.charts["importance"]["data"]["values"]] == ["optim.lr", "optim.name"]
    assert "What decides" in page.html()
