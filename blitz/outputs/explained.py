"""What a table's model has learned, as text."""

from typing import Any

from blitz.outputs.metrics import format_metric
from blitz.visible import visible

_MOST_LISTED, _WORST_LISTED, _LONGEST_CELL = 20, 5, 20


def explained(explanation: dict[str, Any]) -> str:
    """The importance of each column, intervals or calibration, and the worst rows."""
    parts = [_importance(explanation), *_intervals(explanation), *_calibration(explanation), _worst(explanation)]
    return "\n\n".join(part for part in parts if part)


def _importance(explanation: dict[str, Any]) -> str:
    best, shown = explanation["best"], explanation["importance"][:_MOST_LISTED]
    width = max(len("column, permuted"), *(len(_brief(one["column"])) for one in shown))
    lines = [
        f"{'column, permuted':{width}}  loss rises by    95 % interval" + (f"       {best}" if best != "loss" else "")
    ]
    for one in shown:
        low, high = one["interval"]
        change = f"  {one['change']:>+10.4f}" if best != "loss" else ""
        lines.append(f"{_brief(one['column']):{width}}  {one['loss']:>13.4f}  {low:>7.4f} to {high:<7.4f}{change}")
    return "\n".join(lines)


def _intervals(explanation: dict[str, Any]) -> list[str]:
    if "intervals" not in explanation:
        return []
    found = explanation["intervals"]
    lines = [
        f"{found['level']:.0%} prediction intervals, from {found['rows']} errors: width {format_metric(found['width'])}"
    ]
    if "tested" in found:
        low, high = found["share"]
        share = found["within"] / found["tested"]
        lines.append(f"of {found['tested']} test rows {share:.1%} lie within; 95 % interval {low:.1%} to {high:.1%}")
    return ["\n".join(lines)]


def _calibration(explanation: dict[str, Any]) -> list[str]:
    if "calibration" not in explanation:
        return []
    found = explanation["calibration"]
    what = "the predicted class" if found["of"] is None else _brief(found["of"])
    lines = [f"probability of {what}, and how often it is right", "predicted  actual   95 % interval   rows"]
    lines += [
        f"{one['probability']:9.1%}  {one['share']:6.1%}  {one['low']:6.1%} to {one['high']:6.1%}  {one['rows']:5}"
        for one in found["bins"]
    ]
    return ["\n".join(lines)]


def _worst(explanation: dict[str, Any]) -> str:
    lines = []
    for one in explanation["worst"][:_WORST_LISTED]:
        cells = ", ".join(f"{_brief(name)} {_brief(_cell(cell))}" for name, cell in one["cells"].items())
        sure = f" ({one['probability']:.1%})" if "probability" in one else ""
        truth, prediction = (_brief(_said(one[name])) for name in ("truth", "prediction"))
        where = f"line {one['line']}" if isinstance(one["line"], int) else one["line"]
        lines.append(f"{where}: {truth}, predicted {prediction}{sure}; {cells}")
    return "\n".join(["the largest errors", *lines]) if lines else ""


def _said(value: Any) -> str:
    """A class, or the only number by name."""
    return _cell(next(iter(value.values())) if isinstance(value, dict) else value)


def _cell(cell: Any) -> str:
    return "missing" if cell is None else format_metric(cell) if isinstance(cell, float) else str(cell)


def _brief(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= _LONGEST_CELL else f"{shown[: _LONGEST_CELL - 1]}…"
