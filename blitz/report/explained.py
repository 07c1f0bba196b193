"""Charts of what a table's model has learned: importance, dependence, calibration, residuals."""

from collections.abc import Sequence
from typing import Any

from blitz.report.curves import Chart

_MOST_BARS = 30
_BAR_HEIGHT, _HEIGHT = 24, 220


def explanation_charts(explanation: dict[str, Any] | None) -> dict[str, Chart]:
    """The charts of an explanation, by their names."""
    if explanation is None:
        return {}
    charts = {"importance": _importance(explanation["importance"])}
    charts |= {f"dependence {one['column']}": _dependence(one) for one in explanation["dependence"] if one["points"]}
    if "calibration" in explanation:
        charts["calibration"] = _calibration(explanation["calibration"])
    if "residuals" in explanation:
        charts["residuals"] = _residuals(explanation["residuals"])
    return charts


def _importance(columns: Sequence[dict[str, Any]]) -> Chart:
    """How much the loss rises if a column's cells are permuted, with intervals."""
    shown = [{**one, "low": one["interval"][0], "high": one["interval"][1]} for one in columns[:_MOST_BARS]]
    y = {"field": "column", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 160}}
    x = {"field": "loss", "type": "quantitative", "title": "the loss rises by, with its 95 % interval"}
    return {
        "data": {"values": shown},
        "height": _BAR_HEIGHT * len(shown),
        "encoding": {"y": y, "tooltip": [_nominal("column"), *map(_number, ("loss", "low", "high", "change"))]},
        "layer": [
            {"mark": {"type": "bar", "opacity": 0.6}, "encoding": {"x": x}},
            {
                "mark": {"type": "rule", "strokeWidth": 2, "color": {"expr": "faint"}},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}},
            },
        ],
    }


def _dependence(column: dict[str, Any]) -> Chart:
    """The mean prediction for each cell of a column: lines over numbers and times, points over categories."""
    is_category = column["kind"] == "category"
    several = len({one["series"] for one in column["points"]}) > 1
    x: Chart = {"field": "cell", "title": column["column"]}
    if is_category:
        x |= {"type": "nominal", "sort": None, "axis": {"labelLimit": 90}}
    else:
        x |= {"type": "temporal" if column["kind"] == "date" else "quantitative", "scale": {"zero": False}}
    title = column["points"][0]["series"]
    y = {
        "field": "value",
        "type": "quantitative",
        "title": "probability" if several else title,
        "scale": {"zero": False},
    }
    color: dict[str, Any] = {
        "field": "series",
        "type": "nominal",
        "title": None,
        "sort": None,
        "legend": {} if several else None,
    }
    mark = {"type": "point", "filled": True, "size": 70} if is_category else {"type": "line", "point": {"size": 30}}
    return {
        "data": {"values": column["points"]},
        "height": _HEIGHT,
        "mark": mark,
        "encoding": {
            "x": x,
            "y": y,
            "color": color,
            "tooltip": [{**x, "title": column["column"]}, _nominal("series"), _number("value")],
        },
    }


def _calibration(calibration: dict[str, Any]) -> Chart:
    """How often what is predicted with some probability is the case, beside the diagonal."""
    whose = "the predicted class" if calibration["of"] is None else calibration["of"]
    x = {"field": "probability", "type": "quantitative", "title": f"predicted probability of {whose}"}
    y = {"field": "share", "type": "quantitative", "title": "share of the rows, with its 95 % interval"}
    tooltip = [*map(_number, ("probability", "share", "low", "high", "rows"))]
    ends = [{"probability": end, "share": end} for end in (0, 1)]
    return {
        "height": 280,
        "data": {"values": calibration["bins"]},
        "layer": [
            {
                "data": {"values": ends},
                "mark": {"type": "line", "color": {"expr": "faint"}, "strokeDash": [4, 4]},
                "encoding": {"x": x, "y": y},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 2, "color": {"expr": "faint"}},
                "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {"x": x, "y": y, "tooltip": tooltip},
            },
        ],
    }


def _residuals(residuals: Sequence[dict[str, float]]) -> Chart:
    """How much too high predictions are, over the predictions."""
    x = {"field": "predicted", "type": "quantitative", "title": "predicted", "scale": {"zero": False}}
    y = {"field": "error", "type": "quantitative", "title": "predicted - true"}
    return {
        "height": 280,
        "layer": [
            {
                "data": {"values": [{"error": 0}]},
                "mark": {"type": "rule", "color": {"expr": "faint"}, "strokeDash": [4, 4]},
                "encoding": {"y": y},
            },
            {
                "data": {"values": residuals},
                "mark": {"type": "point", "filled": True, "opacity": 0.5, "size": 28},
                "encoding": {"x": x, "y": y, "tooltip": [*map(_number, ("predicted", "error"))]},
            },
        ],
    }


def _number(field: str) -> dict[str, str]:
    return {"field": field, "type": "quantitative", "format": ".4~g"}


def _nominal(field: str) -> dict[str, str]:
    return {"field": field, "type": "nominal"}
