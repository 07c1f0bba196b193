"""Charts of an evaluation: accuracy of each class, confusion matrix, predicted against true numbers."""

from collections.abc import Sequence
from typing import Any

from blitz.report.curves import Chart

_MOST_BARS = 40
_MOST_COUNTS, _MOST_CELLS = 20, 100
_MOST_COLUMNS = 6


def class_chart(evaluation: dict[str, Any]) -> tuple[Chart | None, str]:
    """The accuracy of each class with its interval, and a note if not all classes are shown."""
    _, *classes = evaluation.get("by_class") or [None]
    shown = [
        {
            "class": one["name"],
            "accuracy": one["right"] / one["rows"],
            "low": one["interval"][0],
            "high": one["interval"][1],
            "rows": one["rows"],
        }
        for one in classes
        if one["rows"] and one["interval"]
    ]
    if not shown:
        return None, ""
    note = ""
    if len(shown) > _MOST_BARS:
        shown = sorted(shown, key=lambda one: one["accuracy"])[:_MOST_BARS]
        note = f"The {_MOST_BARS} classes of {len(classes)} with the lowest accuracy."
    y = {"field": "class", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 160}}
    percent = {"format": "%"}
    x = {
        "field": "accuracy",
        "type": "quantitative",
        "title": "accuracy, with its 95 % interval",
        "axis": percent,
        "scale": {"zero": False, "nice": True},
    }
    tooltip = [
        {"field": "class", "type": "nominal"},
        {"field": "accuracy", "type": "quantitative", "format": ".1%"},
        {"field": "low", "type": "quantitative", "format": ".1%", "title": "from"},
        {"field": "high", "type": "quantitative", "format": ".1%", "title": "to"},
        {"field": "rows", "type": "quantitative", "format": ","},
    ]
    overall = evaluation["by_class"][0]
    chart = {
        "data": {"values": shown},
        "height": _row_height(len(shown)) * len(shown),
        "encoding": {"y": y, "tooltip": tooltip},
        "layer": [
            {
                "data": {"values": [{"all": overall["right"] / overall["rows"]}]},
                "mark": {"type": "rule", "color": {"expr": "faint"}, "strokeDash": [3, 3]},
                "encoding": {"x": {"field": "all", "type": "quantitative"}, "y": None, "tooltip": None},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 2, "color": {"expr": "faint"}},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                "encoding": {"x": x},
            },
        ],
    }
    return chart, note


def confusion_chart(evaluation: dict[str, Any]) -> Chart | None:
    """The confusion matrix: counts, coloured by their share of the rows of their class."""
    counts: Sequence[Sequence[int]] | None = evaluation["sums"].get("confusion")
    names = [one["name"] for one in evaluation.get("by_class", [])[1:]]
    if not counts or not names or len(names) > _MOST_CELLS:
        return None
    cells = [
        {"truth": truth, "prediction": prediction, "rows": count, "share": count / sum(row)}
        for truth, row in zip(names, counts, strict=True)
        if sum(row)
        for prediction, count in zip(names, row, strict=True)
    ]
    labelled = len(names) <= _MOST_COUNTS
    height = len(names) * _row_height(len(names))
    axis = {"labelLimit": 110, "domain": False, "ticks": False}
    x = {"field": "prediction", "type": "nominal", "sort": None, "axis": {**axis, "orient": "top", "labelAngle": -40}}
    tooltip = [
        {"field": "truth", "type": "nominal"},
        {"field": "prediction", "type": "nominal"},
        {"field": "rows", "type": "quantitative", "format": ","},
        {"field": "share", "type": "quantitative", "format": ".1%", "title": "of its class"},
    ]
    color = {"field": "share", "type": "quantitative", "scale": {"domain": [0, 1]}, "legend": None}
    cell = {"mark": {"type": "rect", "cornerRadius": 2}, "encoding": {"color": color, "tooltip": tooltip}}
    texts = [
        {
            "mark": {"type": "text", "fontSize": 11, "color": {"expr": color}},
            "transform": [{"filter": f"datum.rows > 0 && {which}"}],
            "encoding": {"text": {"field": "rows", "format": ","}, "tooltip": tooltip},
        }
        for color, which in (("ink", "datum.share <= 0.5"), ("strong", "datum.share > 0.5"))
    ]
    return {
        "data": {"values": cells},
        "height": height,
        "encoding": {"x": x, "y": {"field": "truth", "type": "nominal", "sort": None, "axis": axis}},
        "layer": [cell, *texts] if labelled else [cell],
    }


def _row_height(rows: int) -> int:
    """Pixels, the same for the bars of classes as for their cells beside them."""
    return max(8, min(34, 640 // rows))


def number_charts(evaluation: dict[str, Any]) -> dict[str, Chart]:
    """Predicted against true numbers, a chart for each that is learned."""
    sample = evaluation.get("examples", {}).get("sample", [])
    names = list(sample[0]["truth"])[:_MOST_COLUMNS] if sample else []
    return {name: _scatter(sample, name) for name in names}


def _scatter(sample: Sequence[dict[str, Any]], name: str) -> Chart:
    points = [{"row": one["row"], "truth": one["truth"][name], "predicted": one["prediction"][name]} for one in sample]
    values = [point[side] for point in points for side in ("truth", "predicted")]
    ends = [{"truth": end, "predicted": end} for end in (min(values), max(values))]
    x = {"field": "truth", "type": "quantitative", "title": "true", "scale": {"zero": False}}
    y = {"field": "predicted", "type": "quantitative", "title": "predicted", "scale": {"zero": False}}
    tooltip = [{"field": field, "type": "quantitative", "format": ".5~g"} for field in ("truth", "predicted", "row")]
    return {
        "height": 320,
        "layer": [
            {
                "data": {"values": ends},
                "mark": {"type": "line", "color": {"expr": "faint"}, "strokeDash": [4, 4]},
                "encoding": {"x": x, "y": y},
            },
            {
                "data": {"values": points},
                "mark": {"type": "point", "filled": True, "opacity": 0.5, "size": 28},
                "encoding": {"x": x, "y": y, "tooltip": tooltip},
            },
        ],
    }
