"""Curves over the steps, as Vega-Lite charts: plain JSON, which a page draws and `vl_convert` makes pictures of."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from blitz.report.formatting import duration
from blitz.report.record import Record
from blitz.report.series import ACCOUNTS, Point, Series

Chart = dict[str, Any]

_MOST_METRICS = 4
_MOST_BARS = 120
_HEIGHT = 260
ZOOM = [{"name": "from", "value": None}, {"name": "to", "value": None}]
"""The steps shown: parameters that the page sets in all charts at once."""


def curve_charts(records: Sequence[Record]) -> dict[str, Chart]:
    """Charts by title: loss, metrics of the evaluations, learning rate, throughput."""
    charts = {
        "loss": _lines(records, {"train/loss": "training", "val/loss": "validation"}, title="loss"),
        **{name: _lines(records, {name: name}, title=name) for name in _metrics(records)},
        "learning rate": _lines(records, {name: name for name in _rates(records)}, title="learning rate"),
        "examples a second": _lines(records, {"examples_per_second": "examples a second"}, title="examples a second"),
        "workers": _lines(records, {"world_size": "workers"} if _resized(records) else {}, title="workers", steps=True),
    }
    return {title: chart for title, chart in charts.items() if chart}


def _metrics(records: Sequence[Record]) -> list[str]:
    names = [record.best for record in records]
    names += [name for record in records for name in record.curves.series if name.startswith("val/")]
    return [name for name in dict.fromkeys(names) if name.count("/") == 1 and name != "val/loss"][:_MOST_METRICS]


def _rates(records: Sequence[Record]) -> list[str]:
    names = dict.fromkeys(name for record in records for name in record.curves.series)
    return [name for name in names if name == "lr" or name.startswith("lr/")]


def _resized(records: Sequence[Record]) -> bool:
    return any(len(record.curves.world_sizes) > 1 for record in records)


def _lines(records: Sequence[Record], names: dict[str, str], *, title: str, steps: bool = False) -> Chart | None:
    """A chart of some metrics of metrics.jsonl, None if there are none; `names` maps them to their labels."""
    points = [
        {"run": record.name, "series": called, **point}
        for record in records
        for name, called in names.items()
        for point in _points(record.curves.series.get(name))
    ]
    if not points:
        return None
    several_runs = len(records) > 1
    several_series = len({point["series"] for point in points}) > 1
    color: dict[str, Any] = {
        "field": "run" if several_runs else "series",
        "type": "nominal",
        "title": None,
        "sort": None,
    }
    if not several_runs and not several_series:
        color["legend"] = None
    # The axes of rates and counts start at zero, all others at the lowest value.
    scale = {"zero": not any(name.startswith(("train/", "val/")) for name in names)}
    y = {"field": "value", "type": "quantitative", "title": title, "scale": scale}
    line: Chart = {"y": y, "color": color}
    if several_runs and several_series:
        line["strokeDash"] = {"field": "series", "type": "nominal", "title": None, "sort": None}
    tooltip = [
        *([{"field": "run", "type": "nominal"}] if several_runs else []),
        {"field": "series", "type": "nominal", "title": "curve"},
        {"field": "value", "type": "quantitative", "format": ".5~g"},
        {"field": "step", "type": "quantitative", "format": ","},
        {"field": "epoch", "type": "quantitative", "format": ".3~f"},
    ]
    few = len(points) <= 40
    layers: list[Chart] = [
        {
            "mark": {"type": "line", "clip": True, "strokeWidth": 2, "interpolate": "step-after" if steps else "linear"}
            | ({"point": {"size": 36}} if few else {}),
            "encoding": line,
        },
        {
            "params": [
                {
                    "name": "hover",
                    "select": {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"},
                }
            ],
            "mark": {"type": "point", "filled": True, "size": 70, "clip": True},
            "encoding": {
                "y": y,
                "color": color,
                "opacity": {"condition": {"param": "hover", "empty": False, "value": 1}, "value": 0},
                "tooltip": tooltip,
            },
        },
    ]
    if any("low" in point for point in points):
        band = {"y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": color}
        layers.insert(0, {"mark": {"type": "area", "opacity": 0.2, "clip": True}, "encoding": band})
    layers += _best_layers(records, names, y, color) + _event_layers(records)
    return {
        "data": {"values": points},
        "params": ZOOM,
        "height": _HEIGHT,
        "encoding": {"x": step_axis()},
        "layer": layers,
    }


def step_axis() -> Chart:
    """The steps, of which the page can show a part."""
    scale = {"zero": False, "nice": False, "domainMin": {"expr": "from"}, "domainMax": {"expr": "to"}}
    axis = {"grid": False, "tickCount": 6, "labelOverlap": True, "labelFlush": True}
    return {"field": "step", "type": "quantitative", "title": "step", "scale": scale, "axis": axis}


def _points(series: Series | None) -> Iterable[dict[str, Any]]:
    for point in series.points if series else ():
        band = {"low": point.low, "high": point.high} if series and series.is_thinned else {}
        yield {"step": point.step, "epoch": point.epoch, "value": point.mean, **band}


def _best_layers(records: Sequence[Record], names: dict[str, str], y: Chart, color: Chart) -> list[Chart]:
    """The best checkpoint's metrics, as diamonds on the curves of the validation rows."""
    marks = [
        {"run": record.name, "series": called, "step": record.evaluation["step"], "value": record.metrics[name]}
        for record in records
        for name, called in names.items()
        if name.startswith("val/") and record.evaluation and name in record.metrics
    ]
    if not marks:
        return []
    tooltip = [
        *([{"field": "run", "type": "nominal"}] if len(records) > 1 else []),
        {"field": "series", "type": "nominal", "title": "best checkpoint"},
        {"field": "value", "type": "quantitative", "format": ".5~g"},
        {"field": "step", "type": "quantitative", "format": ","},
    ]
    encoding = {"x": step_axis(), "y": y, "color": color, "tooltip": tooltip}
    diamond = {"type": "point", "shape": "diamond", "filled": True, "size": 150, "opacity": 1, "clip": True}
    if len(records) > 1:
        return [{"data": {"values": marks}, "mark": diamond, "encoding": encoding}]
    label = {"type": "text", "text": "best", "dy": -12, "fontSize": 11, "color": {"expr": "ink"}, "clip": True}
    return [
        {"data": {"values": marks}, "mark": diamond, "encoding": encoding},
        {"data": {"values": marks}, "mark": label, "encoding": {"x": step_axis(), "y": y}},
    ]


def _event_layers(records: Sequence[Record]) -> list[Chart]:
    """Where a run was resumed or failed, as dashed lines."""
    marks = [
        {"step": event.get("step", 0), "what": event["what"], "event": f"{record.name}: {text}"}
        for record in records
        for event, text in zip(record.events, event_texts(record), strict=True)
        if event["what"] not in ("started", "finished", "restarted", "hang ended", "straggler")
        or (event["what"] == "started" and event.get("reached"))
    ]
    if not marks:
        return []
    tooltip = {"field": "event", "type": "nominal"}
    label = {"type": "text", "align": "center", "baseline": "bottom", "fontSize": 11, "color": {"expr": "alarm"}}
    return [
        {
            "data": {"values": marks},
            "mark": {
                "type": "rule",
                "color": {"expr": "alarm"},
                "strokeWidth": 1.5,
                "strokeDash": [4, 3],
                "clip": True,
            },
            "encoding": {"x": step_axis(), "tooltip": tooltip},
        },
        {
            "data": {"values": _labels(marks)},
            "transform": [{"filter": "(from === null || datum.step >= from) && (to === null || datum.step <= to)"}],
            "mark": label,
            "encoding": {
                "x": step_axis(),
                "y": {"value": -3},
                "text": {"field": "what"},
                "tooltip": tooltip,
            },
        },
    ]


def _labels(marks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One label for all events at a step."""
    whats: dict[int, list[str]] = {}
    for mark in marks:
        whats.setdefault(mark["step"], []).append(mark["what"])
    texts = {mark["step"]: mark["event"] for mark in marks}
    return [{"step": at, "what": ", ".join(dict.fromkeys(each)), "event": texts[at]} for at, each in whats.items()]


def event_texts(record: Record) -> list[str]:
    """Each event in a sentence."""
    return [_event_text(event) for event in record.events]


def _event_text(event: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(event["time"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    workers, step = event.get("world_size", 1), event.get("step", 0)
    if event.get("change"):
        return f"{event['what']} at step {step:,}: {event['change']} ({when})"
    if event["what"] == "restarted":
        seconds = event.get("seconds", {})
        parts = ", ".join(f"{part} {duration(spent)}" for part, spent in seconds.items())
        total = duration(sum(seconds.values()))
        return f"restarted after a failure: {total} until step {step:,} was done ({parts}; {when})"
    if event["what"] == "straggler":
        return f"{event.get('error', '')} ({when})"
    if event["what"] == "hang":
        return f"hang at step {step:,}: {event.get('error', '')} ({when})"
    if event["what"] == "hang ended":
        return f"the run continued at step {step:,} after {duration(event.get('hang_seconds', 0.0))} ({when})"
    where = f"{workers} worker{'s' if workers > 1 else ''}, {event.get('device', 'cpu')}"
    reached = event.get("reached")
    lost = f", having reached step {reached:,}" if reached and reached > step else ""
    damaged = event.get("damaged")
    why = f", because the checkpoint of step {', '.join(map(str, damaged))} is damaged" if damaged else ""
    error = f": {event['error']}" if event.get("error") else ""
    return f"{event['what']} at step {step:,}{lost}{why}{error} ({where}; {when})"


def time_chart(records: Sequence[Record]) -> Chart | None:
    """How each run spent its time, one bar a run."""
    bars = [
        {"run": record.name, "account": ACCOUNTS[account], "seconds": seconds, "order": order}
        for record in records
        for order, (account, seconds) in enumerate(record.seconds.items())
    ]
    if not bars:
        return None
    return {
        "data": {"values": bars},
        "height": 44 * len(records),
        "mark": {"type": "bar", "cornerRadius": 2},
        "encoding": {
            "x": {
                "field": "seconds",
                "type": "quantitative",
                "title": "seconds",
                "stack": "zero",
                "axis": {"tickCount": 6},
            },
            "y": {"field": "run", "type": "nominal", "title": None, "axis": None if len(records) == 1 else {}},
            "color": {"field": "account", "type": "nominal", "sort": list(ACCOUNTS.values()), "title": None},
            "order": {"field": "order"},
            "tooltip": [
                {"field": "account", "type": "nominal", "title": "time"},
                {"field": "seconds", "type": "quantitative", "format": ",.2f"},
            ],
        },
    }


def _groups(points: list[Point]) -> list[list[Point]]:
    each = max(1, -(-len(points) // _MOST_BARS))
    return [points[start : start + each] for start in range(0, len(points), each)]


def time_over_steps(record: Record) -> Chart | None:
    """The share of time of each account, over the steps of a run."""
    accounts = {account: record.curves.series.get(f"{account}_seconds") for account in ACCOUNTS}
    compute = accounts["compute"]
    if compute is None or sum(point.count for point in compute.points) < 3:
        return None
    points = [
        {
            "step": group[-1].step,
            "account": ACCOUNTS[account],
            "order": order,
            "seconds": sum(one.total for one in group),
        }
        for order, (account, series) in enumerate(accounts.items())
        for group in _groups(series.points if series else [])
    ]
    return {
        "data": {"values": points},
        "params": ZOOM,
        "height": 140,
        "mark": {"type": "area", "clip": True, "interpolate": "step-before"},
        "encoding": {
            "x": step_axis(),
            "y": {
                "field": "seconds",
                "type": "quantitative",
                "stack": "normalize",
                "title": "share of time",
                "axis": {"format": "%"},
            },
            "color": {
                "field": "account",
                "type": "nominal",
                "sort": list(ACCOUNTS.values()),
                "title": None,
                "legend": None,
            },
            "order": {"field": "order"},
        },
    }
