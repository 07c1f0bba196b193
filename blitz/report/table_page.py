"""The page of a table: each column's content, its relation to the target, and what to look at before training."""

from blitz.data.csv.profile import ColumnProfile, TableProfile
from blitz.report.curves import Chart
from blitz.report.formatting import number
from blitz.report.page import Page
from blitz.visible import all_visible

_BAR_HEIGHT = 16
_PARTS = ("training", "validation")


def table_page(profile: TableProfile) -> Page:
    """The page of a profile."""
    columns = [
        {
            "name": one.report.name,
            "type": one.report.type,
            "missing": one.report.missing,
            "missing_share": one.report.missing / max(1, one.report.missing + one.report.count),
            "summary": _summary(one),
            "note": one.report.note or "",
            "examples": one.examples,
            "explained": one.explained,
            "drift": one.drift,
            "drifts": one.drifts,
            "is_leak": one.is_leak,
            "is_target": one.report.name == profile.target,
        }
        for one in _ordered(profile)
    ]
    charts = {}
    for number_of, one in enumerate(_ordered(profile)):
        charts[f"values {number_of}"] = _values_chart(one, profile)
        if any(mean is not None for mean in one.targets) and one.report.name != profile.target:
            charts[f"target {number_of}"] = _target_chart(one, profile)
    context = {
        "title": profile.index.csv,
        "profile": profile,
        "described": profile.index.described(),
        "columns": columns,
        "findings": _findings(profile),
        "parts": list(zip(_PARTS, profile.rows, profile.sampled, strict=False)),
        "left_out": len(profile.index.columns) - len(columns),
    }
    return Page("table.html", all_visible(charts), context)


def _ordered(profile: TableProfile) -> list[ColumnProfile]:
    """The target first, then the columns that explain the most of it."""
    return sorted(
        profile.columns, key=lambda one: (one.report.name != profile.target, -(one.explained or 0.0), one.report.name)
    )


def _summary(one: ColumnProfile) -> str:
    report = one.report
    if report.values is not None:
        return f"{len(report.values):,} values"
    if report.mean is None:
        return ""
    return f"{number(report.min)} to {number(report.max)}, mean {number(report.mean)}, std {number(report.std)}"


def _findings(profile: TableProfile) -> list[str]:
    """What to look at before training, in words."""
    found = [
        f"Column '{one.report.name}' alone explains {one.explained:.0%} of '{profile.target}': is it known when a "
        "prediction is made? If not, leave it out with --data.ignore."
        for one in profile.columns
        if one.is_leak and one.explained is not None
    ]
    if profile.duplicates:
        found.append(
            f"{profile.duplicates:,} of {profile.sampled[1]:,} validation rows are nearly training rows (numbers to "
            "three digits, text but for case and blanks): metrics on them flatter. Split by what they share, as "
            "--data.split group:COLUMN."
        )
    found += [
        f"Column '{one.report.name}' differs between the parts: a distance of {one.drift:.2f}, by chance at most "
        f"{one.by_chance:.2f}."
        for one in profile.columns
        if one.drifts
    ]
    found += [
        f"Column '{one.report.name}' is the same in all rows."
        for one in profile.columns
        if one.report.is_constant and not one.report.missing
    ]
    return found


def _bars(one: ColumnProfile) -> Chart:
    return {"field": "bin", "type": "nominal", "sort": list(one.bins), "title": None, "axis": {"labelLimit": 140}}


def _values_chart(one: ColumnProfile, profile: TableProfile) -> Chart:
    """The share of each bin: bars of training rows, and marks of validation rows."""
    values = [
        {"bin": name, "share": share, "part": part}
        for part, shares in zip(_PARTS, one.shares, strict=False)
        for name, share in zip(one.bins, shares, strict=True)
    ]
    x = {"field": "share", "type": "quantitative", "title": None, "axis": {"format": "%", "tickCount": 4}}
    tooltip = [
        {"field": "bin", "type": "nominal"},
        {"field": "share", "type": "quantitative", "format": ".1%"},
        {"field": "part", "type": "nominal"},
    ]
    layers: list[Chart] = [
        {"transform": [{"filter": f"datum.part == '{_PARTS[0]}'"}], "mark": {"type": "bar", "cornerRadiusEnd": 2}}
    ]
    if len(profile.rows) > 1:
        layers.append(
            {
                "transform": [{"filter": f"datum.part == '{_PARTS[1]}'"}],
                "mark": {"type": "tick", "thickness": 2, "color": {"expr": "alarm"}},
            }
        )
    return {
        "data": {"values": values},
        "height": _BAR_HEIGHT * len(one.bins),
        "encoding": {"y": _bars(one), "x": x, "tooltip": tooltip},
        "layer": layers,
    }


def _target_chart(one: ColumnProfile, profile: TableProfile) -> Chart:
    """The mean of the target in each bin."""
    values = [{"bin": name, "mean": mean} for name, mean in zip(one.bins, one.targets, strict=True)]
    axis = {"format": "%"} if profile.target_of_bins.startswith("share ") else {}
    x = {
        "field": "mean",
        "type": "quantitative",
        "title": profile.target_of_bins,
        "scale": {"zero": False},
        "axis": {**axis, "tickCount": 4},
    }
    return {
        "data": {"values": values},
        "height": _BAR_HEIGHT * len(one.bins),
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
        "encoding": {
            "y": _bars(one),
            "x": x,
            "tooltip": [{"field": "bin", "type": "nominal"}, {"field": "mean", "type": "quantitative"}],
        },
    }
