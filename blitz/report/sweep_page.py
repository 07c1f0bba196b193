"""A sweep: its trials in a table, in parallel coordinates, and their curves."""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from blitz.report.curves import ZOOM, Chart, step_axis
from blitz.run_files.directory import RunDirectory

_READERS = 16
_MOST_CURVES, _POINTS_A_CURVE = 128, 60
_MOST_LINES = 500
_WIDE = 50
"""A setting whose values span a larger ratio gets a logarithmic axis."""
_FEW = 8
"""With fewer values, the scale is never cut off."""
_SQUASHED = 4
"""The scale is cut off if it would be more than this many times as long as for most values."""
_OPTIMIZER = "optim.name"
Row = dict[str, str]


@dataclass(frozen=True)
class Sweep:
    """The files of a sweep."""

    name: str
    uri: str
    settings: dict[str, Any]
    """The content of sweep.json."""
    rows: list[Row]
    """The rows of trials.csv, the best first."""
    varied: list[str]
    """The settings that vary."""
    curves: dict[str, list[tuple[int, float]]]
    """By trial number: steps and values of the deciding metric."""
    best: dict[str, Any] | None
    """The recipe of the best trial."""
    importance: dict[str, float]
    """The importance of each setting, as shares of 1; empty if unknown."""
    command: str

    @property
    def metric(self) -> str:
        """The deciding metric."""
        return str(self.settings["metric"])

    @property
    def columns(self) -> list[str]:
        """The columns of the table."""
        return list(self.rows[0]) if self.rows else []


def is_sweep(run: RunDirectory) -> bool:
    """Whether a directory is a sweep's."""
    return run.exists("sweep.json")


def read_sweep(run: RunDirectory) -> Sweep:
    """The sweep in a directory."""
    settings = run.read_json("sweep.json")
    assert settings is not None
    rows = run.read_trials()
    higher = settings["mode"] == "max"
    rows.sort(key=lambda row: _key(row["best"], higher_is_better=higher))
    own = ("trial", "state", "last", "best", "step", "seconds", "error")
    names = [row["trial"] for row in rows[:_MOST_CURVES]]

    def curve(trial: str) -> list[tuple[int, float]]:
        return _thinned(_trial(run, trial).each_metric(), settings["metric"])

    with ThreadPoolExecutor(_READERS) as readers:
        curves = dict(zip(names, readers.map(curve, names), strict=True))
    return Sweep(
        name=run.name,
        uri=run.uri,
        settings=settings,
        rows=rows,
        varied=[name for name in rows[0] if name not in own] if rows else [],
        curves=curves,
        best=run.part("best").read_json("recipe.json"),
        importance=run.read_json("importance.json") or {},
        command=next((str(event["command"]) for event in reversed(run.events()) if event.get("command")), ""),
    )


def _trial(run: RunDirectory, number: str) -> RunDirectory:
    return run.part(f"trials/{int(number):04d}")


def _key(value: str, *, higher_is_better: bool) -> float:
    number = _float(value)
    if number is None:
        return math.inf
    return -number if higher_is_better else number


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _thinned(lines: Iterable[dict[str, Any]], metric: str) -> list[tuple[int, float]]:
    points = [(line["step"], line[metric]) for line in lines if isinstance(line.get(metric), float | int)]
    each = max(1, -(-len(points) // _POINTS_A_CURVE))
    # The last point is always kept: that is where the trial ended.
    return [*points[:-1:each], *points[-1:]]


def sweep_charts(sweep: Sweep) -> dict[str, Chart | None]:
    """Charts by their names."""
    return {"parallel": parallel_coordinates(sweep), "importance": _importance(sweep), "trials": _curves(sweep)}


def _importance(sweep: Sweep) -> Chart | None:
    """A bar for each setting: how much of the differences between trials it explains."""
    if not sweep.importance:
        return None
    bars = [{"setting": name, "share": share} for name, share in sweep.importance.items()]
    return {
        "data": {"values": bars},
        "height": 26 * len(bars),
        "mark": {"type": "bar", "cornerRadius": 2},
        "encoding": {
            "y": {"field": "setting", "type": "nominal", "sort": "-x", "title": None, "axis": {"labelLimit": 260}},
            "x": {"field": "share", "type": "quantitative", "title": "importance", "axis": {"format": "%"}},
            "tooltip": [
                {"field": "setting", "type": "nominal"},
                {"field": "share", "type": "quantitative", "format": ".1%"},
            ],
        },
    }


def parallel_coordinates(sweep: Sweep) -> Chart | None:
    """A line a trial, across an axis for each setting that varies and one for the best value."""
    # The best last, which is on top.
    rows = [row for row in sweep.rows if _float(row["best"]) is not None][:_MOST_LINES][::-1]
    if not rows:
        return None
    axes = {name: _Axis.of([row[name] for row in rows]) for name in [*sweep.varied, "best"]}
    called = {name: sweep.metric if name == "best" else name for name in axes}
    points = [
        {
            "trial": int(row["trial"]),
            "axis": called[name],
            "position": axis.position(row[name]),
            "value": row[name],
            "best": _float(row["best"]),
        }
        for row in rows
        for name, axis in axes.items()
    ]
    ticks = [
        {"axis": called[name], "position": position, "tick": tick}
        for name, axis in axes.items()
        for position, tick in axis.ticks
    ]
    x = {
        "field": "axis",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelAngle": -20, "labelLimit": 160},
    }
    y = {"field": "position", "type": "quantitative", "axis": None, "scale": {"domain": [-0.02, 1.02]}}
    hover = {
        "name": "over",
        "select": {"type": "point", "on": "pointerover", "fields": ["trial"], "clear": "pointerout"},
    }
    tooltip = [{"field": name, "type": "nominal"} for name in ("trial", "axis", "value")]
    return {
        "height": 320,
        "layer": [
            {
                "data": {"values": points},
                "params": [hover],
                "mark": {"type": "line", "strokeWidth": 1.5},
                "encoding": {
                    "x": x,
                    "y": y,
                    "detail": {"field": "trial"},
                    "color": {
                        "field": "best",
                        "type": "quantitative",
                        "title": sweep.metric,
                        "scale": {"reverse": sweep.settings["mode"] == "min"},
                    },
                    "opacity": {"condition": {"param": "over", "value": 0.9}, "value": 0.08},
                    "tooltip": tooltip,
                },
            },
            {
                "data": {"values": ticks},
                "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 11, "color": {"expr": "faint"}},
                "encoding": {"x": x, "y": y, "text": {"field": "tick"}},
            },
        ],
    }


@dataclass(frozen=True)
class _Axis:
    """An axis of the parallel coordinates: maps values to positions between 0 and 1."""

    positions: dict[str, float]
    ticks: list[tuple[float, str]]

    @classmethod
    def of(cls, values: Sequence[str]) -> "_Axis":
        """Numbers by size, or by logarithm over a wide range; other values in order; empty cells at the bottom."""
        there = {value: _float(value) for value in values if value != ""}
        bottom = 0.0 if len(there) == len(set(values)) else 0.12
        numbers = sorted({number for number in there.values() if number is not None})
        if len(numbers) >= 2 and None not in there.values():
            scale = _scale(numbers[0], numbers[-1])
            positions = {value: scale(number) for value, number in there.items() if number is not None}
            ticks = [(0.0, f"{numbers[0]:.4g}"), (1.0, f"{numbers[-1]:.4g}")]
        else:
            names, last = sorted(there), len(there) - 1
            positions = {name: number / last if last else 0.5 for number, name in enumerate(names)}
            ticks = [(position, name) for name, position in positions.items()]
        positions = {value: bottom + position * (1 - bottom) for value, position in positions.items()}
        ticks = [(bottom + position * (1 - bottom), tick) for position, tick in ticks]
        return cls({"": 0.0, **positions}, [(0.0, "–"), *ticks] if bottom else ticks)

    def position(self, value: str) -> float:
        """The position of a value, between 0 and 1."""
        return self.positions[value]


def _scale(low: float, high: float) -> Callable[[float], float]:
    """A function from numbers between `low` and `high` to positions between 0 and 1."""
    if low > 0 and high / low > _WIDE:
        return lambda number: math.log(number / low) / math.log(high / low)
    return lambda number: (number - low) / (high - low)


def curves_by(sweep: Sweep) -> str:
    """The setting that the curves are coloured by: the optimizer if it varies, else the first that is not a number."""
    if _OPTIMIZER in sweep.varied:
        return _OPTIMIZER
    named = [name for name in sweep.varied if any(_float(row[name]) is None for row in sweep.rows)]
    return named[0] if named else ""


def _scale_of_curves(values: Sequence[float], *, mode: str) -> Chart:
    """The scale of the deciding metric: where a few bad values would squash all others, logarithmic or cut off.

    It is cut off at that quarter of the values that is the worst, as far beyond it as the others reach.
    """
    found = sorted(value for value in values if math.isfinite(value))
    if len(found) < _FEW:
        return {"zero": False}
    low, high, quarter = found[0], found[-1], len(found) // 4
    if mode == "min":
        bound = found[-1 - quarter] + (found[-1 - quarter] - low)
        if high - low <= _SQUASHED * (bound - low):
            return {"zero": False}
        return {"type": "log"} if low > 0 else {"zero": False, "domain": [low, bound], "nice": False}
    bound = found[quarter] - (high - found[quarter])
    far = high - low > _SQUASHED * (high - bound)
    return {"zero": False, "domain": [bound, high], "nice": False} if far else {"zero": False}


def _curves(sweep: Sweep) -> Chart | None:
    """The deciding metric of each trial, over the steps."""
    by, rows = curves_by(sweep), {row["trial"]: row for row in sweep.rows}
    points = [
        {"trial": int(trial), "step": step, "value": value, "by": rows[trial].get(by) or "all"}
        for trial, curve in sweep.curves.items()
        for step, value in curve
    ]
    if not points:
        return None
    hover = {
        "name": "over",
        "select": {"type": "point", "on": "pointerover", "fields": ["trial"], "clear": "pointerout"},
    }
    values = [value for curve in sweep.curves.values() for _, value in curve]
    scale = _scale_of_curves(values, mode=sweep.settings["mode"])
    y = {"field": "value", "type": "quantitative", "title": sweep.metric, "scale": scale}
    return {
        "data": {"values": points},
        "params": [*ZOOM, hover],
        "height": 320,
        "mark": {"type": "line", "clip": True, "strokeWidth": 1.5},
        "encoding": {
            "x": step_axis(),
            "y": y,
            "detail": {"field": "trial"},
            "color": {"field": "by", "type": "nominal", "title": None, **({} if by else {"legend": None})},
            "opacity": {"condition": {"param": "over", "value": 0.75}, "value": 0.08},
            "tooltip": [
                {"field": "trial", "type": "nominal"},
                {"field": "by", "type": "nominal", "title": by or "of"},
                {"field": "value", "type": "quantitative", "format": ".5~g"},
            ],
        },
    }
