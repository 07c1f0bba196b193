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
"""So many times its least a setting is spread by its logarithm."""
_OPTIMIZER = "optim.name"
Row = dict[str, str]


@dataclass(frozen=True)
class Sweep:
    """What the files of a sweep say."""

    name: str
    place: str
    asked: dict[str, Any]
    """sweep.json."""
    rows: list[Row]
    """Of trials.csv, the best first."""
    varied: list[str]
    """Settings that vary."""
    curves: dict[str, list[tuple[int, float]]]
    """By the number of a trial: steps, and the figure that decides."""
    best: dict[str, Any] | None
    """The recipe of the best trial."""
    command: str

    @property
    def metric(self) -> str:
        """The figure that decides."""
        return str(self.asked["metric"])

    @property
    def columns(self) -> list[str]:
        """Of the table."""
        return list(self.rows[0]) if self.rows else []


def is_sweep(run: RunDirectory) -> bool:
    """Whether a directory is a sweep's."""
    return run.exists("sweep.json")


def read_sweep(run: RunDirectory) -> Sweep:
    """The sweep in a directory."""
    asked = run.read_json("sweep.json")
    assert asked is not None
    rows = run.read_trials()
    higher = asked["mode"] == "max"
    rows.sort(key=lambda row: _key(row["best"], higher_is_better=higher))
    own = ("trial", "state", "last", "best", "step", "seconds", "error")
    names = [row["trial"] for row in rows[:_MOST_CURVES]]

    def curve(trial: str) -> list[tuple[int, float]]:
        return _thinned(_trial(run, trial).each_metric(), asked["metric"])

    with ThreadPoolExecutor(_READERS) as readers:
        curves = dict(zip(names, readers.map(curve, names), strict=True))
    return Sweep(
        name=run.name,
        place=run.uri,
        asked=asked,
        rows=rows,
        varied=[name for name in rows[0] if name not in own] if rows else [],
        curves=curves,
        best=run.part("best").read_json("recipe.json"),
        command=next((str(event["command"]) for event in reversed(run.events()) if event.get("command")), ""),
    )


def _trial(run: RunDirectory, number: str) -> RunDirectory:
    return run.part(f"trials/{int(number):04d}")


def _key(value: str, *, higher_is_better: bool) -> float:
    figure = _float(value)
    if figure is None:
        return math.inf
    return -figure if higher_is_better else figure


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _thinned(lines: Iterable[dict[str, Any]], metric: str) -> list[tuple[int, float]]:
    points = [(line["step"], line[metric]) for line in lines if isinstance(line.get(metric), float | int)]
    each = max(1, -(-len(points) // _POINTS_A_CURVE))
    # With the last, which is where a trial ended.
    return [*points[:-1:each], *points[-1:]]


def sweep_charts(sweep: Sweep) -> dict[str, Chart | None]:
    """Charts by their names."""
    return {"parallel": parallel_coordinates(sweep), "trials": _curves(sweep)}


def parallel_coordinates(sweep: Sweep) -> Chart | None:
    """A line a trial, across an axis for each setting that varies and one for what came of it."""
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
            "place": axis.place(row[name]),
            "value": row[name],
            "figure": _float(row["best"]),
        }
        for row in rows
        for name, axis in axes.items()
    ]
    ticks = [
        {"axis": called[name], "place": place, "tick": tick}
        for name, axis in axes.items()
        for place, tick in axis.ticks
    ]
    x = {
        "field": "axis",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelAngle": -20, "labelLimit": 160},
    }
    y = {"field": "place", "type": "quantitative", "axis": None, "scale": {"domain": [-0.02, 1.02]}}
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
                        "field": "figure",
                        "type": "quantitative",
                        "title": sweep.metric,
                        "scale": {"reverse": sweep.asked["mode"] == "min"},
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
    """Where values lie between 0 and 1."""

    places: dict[str, float]
    ticks: list[tuple[float, str]]

    @classmethod
    def of(cls, values: Sequence[str]) -> "_Axis":
        """Numbers by their size, or its logarithm where that spreads them better; all else in order, nothing below."""
        there = {value: _float(value) for value in values if value != ""}
        bottom = 0.0 if len(there) == len(set(values)) else 0.12
        figures = sorted({figure for figure in there.values() if figure is not None})
        if len(figures) >= 2 and None not in there.values():
            spread = _spread(figures[0], figures[-1])
            places = {value: spread(figure) for value, figure in there.items() if figure is not None}
            ticks = [(0.0, f"{figures[0]:.4g}"), (1.0, f"{figures[-1]:.4g}")]
        else:
            names = sorted(there)
            places = {name: place / (len(names) - 1) if len(names) > 1 else 0.5 for place, name in enumerate(names)}
            ticks = [(place, name) for name, place in places.items()]
        places = {value: bottom + place * (1 - bottom) for value, place in places.items()}
        ticks = [(bottom + place * (1 - bottom), tick) for place, tick in ticks]
        return cls({"": 0.0, **places}, [(0.0, "–"), *ticks] if bottom else ticks)

    def place(self, value: str) -> float:
        """Where a value lies."""
        return self.places[value]


def _spread(low: float, high: float) -> Callable[[float], float]:
    """What gives numbers between `low` and `high` a place between 0 and 1."""
    if low > 0 and high / low > _WIDE:
        return lambda figure: math.log(figure / low) / math.log(high / low)
    return lambda figure: (figure - low) / (high - low)


def curves_by(sweep: Sweep) -> str:
    """The setting that the curves are coloured by: the optimizer if it varies, else the first that is no number."""
    if _OPTIMIZER in sweep.varied:
        return _OPTIMIZER
    named = [name for name in sweep.varied if any(_float(row[name]) is None for row in sweep.rows)]
    return named[0] if named else ""


def _curves(sweep: Sweep) -> Chart | None:
    """How trials went: the figure that decides, over the steps."""
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
    y = {"field": "value", "type": "quantitative", "title": sweep.metric, "scale": {"zero": False}}
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
