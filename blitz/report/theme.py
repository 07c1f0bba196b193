"""Colours and fonts of the charts, light and dark."""

from typing import Any

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def _theme(
    *, text: str, faint: str, grid: str, series: list[str], heat: list[str], depth: list[str], strong: str, alarm: str
) -> dict[str, Any]:
    return {
        "background": None,
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "labelColor": faint,
            "titleColor": text,
            "gridColor": grid,
            "domainColor": grid,
            "tickColor": grid,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": 500,
            "titlePadding": 8,
            "tickSize": 4,
        },
        "legend": {
            "labelColor": text,
            "titleColor": text,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "orient": "top",
            "title": None,
            "symbolBaseStrokeColor": faint,
            "symbolStrokeWidth": 2,
            "labelLimit": 320,
        },
        "title": {"color": text},
        "style": {"cell": {"stroke": None}},
        # Charts refer to these as {"expr": "alarm"} and so on.
        "params": [
            {"name": name, "value": colour}
            for name, colour in {"ink": text, "faint": faint, "strong": strong, "alarm": alarm}.items()
        ],
        "mark": {"color": series[0]},
        "range": {"category": series, "heatmap": heat, "ramp": depth},
    }


LIGHT = _theme(
    text="#1c2733",
    faint="#5b6b7c",
    grid="#e3e8ee",
    series=["#2563eb", "#ea7317", "#0f9d76", "#c2407a", "#7c4fd0", "#a87b00", "#0891b2", "#6b7280"],
    heat=["#f1f5fb", "#bcd3f7", "#7fabef", "#3f7fe0", "#1d4fae"],
    depth=["#a9c6f5", "#3f7fe0", "#143a85"],
    strong="#ffffff",
    alarm="#d1242f",
)
DARK = _theme(
    text="#e6edf3",
    faint="#9aa8b6",
    grid="#2b3540",
    series=["#6ea8fe", "#ffa657", "#4cc9a0", "#f07fb0", "#b197fc", "#e3b341", "#56c7dc", "#9aa8b6"],
    heat=["#18212b", "#1f3a63", "#2a5aa3", "#3a72cc"],
    depth=["#2a5aa3", "#4a86e0", "#b5d3ff"],
    strong="#ffffff",
    alarm="#ff7b72",
)
