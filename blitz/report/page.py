"""One self-contained HTML page: it holds all data and scripts, so it opens from a disk."""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from blitz.extras import extra
from blitz.report.classes import class_chart, confusion_chart, number_charts
from blitz.report.curves import Chart, curve_charts, event_texts, time_chart, time_over_steps
from blitz.report.explained import explanation_charts
from blitz.report.formatting import duration, number, rounded, shown
from blitz.report.goodput_chart import goodput_chart
from blitz.report.record import Record, differing
from blitz.report.series import ACCOUNTS
from blitz.report.sweep_page import Sweep, curves_by, sweep_charts
from blitz.report.theme import DARK, LIGHT
from blitz.storage import replacing
from blitz.visible import all_visible, visible

_TEMPLATES = Path(__file__).with_name("templates")
_MOST_ATTENTIONS = 8
_PNG_WIDTH, _PNG_SCALE = 560, 2.0
_OFF: tuple[Any, ...] = (None, "", [], {}, "none")


@dataclass(frozen=True)
class Page:
    """The page of one run, of several, or of a sweep."""

    template: str
    charts: dict[str, Chart]
    """By the names that the template uses."""
    context: dict[str, Any]
    """The other variables of the template."""

    def html(self) -> str:
        """The whole file."""
        with extra("report", what="a report"):
            from jinja2 import Environment, FileSystemLoader, StrictUndefined

        environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            finalize=_made_visible,
        )
        environment.filters |= {"shown": shown, "number": number, "duration": duration, "rounded": rounded}
        return environment.get_template(self.template).render(
            charts=self.charts,
            themes={"light": LIGHT, "dark": DARK},
            drawing=vega(),
            style=(_TEMPLATES / "page.css").read_text(encoding="utf-8"),
            script=(_TEMPLATES / "page.js").read_text(encoding="utf-8"),
            **self.context,
        )

    def svgs(self) -> dict[str, str]:
        """The charts as SVG, by their names; for a light background."""
        with extra("report", what="a chart"):
            import vl_convert

        return {
            name: vl_convert.vegalite_to_svg({"width": _PNG_WIDTH, **chart}, config=LIGHT)
            for name, chart in self.charts.items()
        }

    def pngs(self) -> dict[str, bytes]:
        """The charts as pictures, by names of files."""
        with extra("report", what="a picture of a chart"):
            import vl_convert

        config = {**LIGHT, "background": "white"}
        pictures = {}
        for name, chart in self.charts.items():
            sized = {"width": _PNG_WIDTH, "padding": 12, **chart}
            words = re.findall(r"[^\W_]+", name.lower().removeprefix("curve "))
            pictures[f"{'-'.join(words)}.png"] = vl_convert.vegalite_to_png(sized, scale=_PNG_SCALE, config=config)
        return pictures


def _made_visible(value: Any) -> Any:
    """A value as a template prints it; text from outside the project gets its control characters made visible."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def run_page(record: Record) -> Page:
    """The page of one run."""
    evaluation, explanation = all_visible(record.evaluation), all_visible(record.explanation)
    curves = {f"curve {title}": chart for title, chart in curve_charts([record]).items()}
    by_class, class_note = class_chart(evaluation) if evaluation else (None, "")
    numbers = number_charts(evaluation) if evaluation else {}
    charts = {
        **curves,
        "time": time_chart([record]),
        "time over steps": time_over_steps(record),
        "goodput": goodput_chart(record),
        "by class": by_class,
        "confusion": confusion_chart(evaluation) if evaluation else None,
        **{f"number {name}": chart for name, chart in numbers.items()},
        **_attention_charts(evaluation),
        **explanation_charts(explanation),
    }
    context = {
        "title": record.name,
        "record": record,
        "tiles": _tiles(record),
        "curves": list(curves),
        "events": list(zip(record.events, event_texts(record), strict=True)),
        "class_note": class_note,
        "numbers": list(numbers),
        "explanation": explanation,
        "dependence": [one["column"] for one in explanation["dependence"] if one["points"]] if explanation else [],
        "examples": (evaluation or {}).get("examples", {}),
        "seconds": _seconds(record),
        "causes": _causes(record),
        # Values that mean that a setting is off.
        "settings_on": {name: value for name, value in record.settings.items() if value not in _OFF},
        "settings_off": {name: value for name, value in record.settings.items() if value in _OFF},
    }
    return Page("run.html", _present(charts), context)


def comparison_page(records: Sequence[Record]) -> Page:
    """The page of several runs, side by side."""
    names = list(dict.fromkeys(name for record in records for name in record.metrics))
    curves = {f"curve {title}": chart for title, chart in curve_charts(records).items()}
    context = {
        "title": " · ".join(record.name for record in records),
        "records": records,
        "metrics": [(name, [record.metrics.get(name) for record in records]) for name in names],
        "differing": differing(records),
        "curves": list(curves),
        "colours": [f"var(--series-{number % 8})" for number in range(len(records))],
    }
    return Page("comparison.html", _present({**curves, "time": time_chart(records)}), context)


def sweep_page(sweep: Sweep) -> Page:
    """The page of a sweep."""
    context = {"title": sweep.name, "sweep": sweep, "curves_by": curves_by(sweep)}
    return Page("sweep.html", _present(sweep_charts(sweep)), context)


def _present(charts: dict[str, Chart | None]) -> dict[str, Chart]:
    return {name: _finite(chart) for name, chart in charts.items() if chart is not None}


def _finite(value: Any) -> Any:
    """`value` with null for NaN and infinity, which JSON lacks; Vega skips null."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def vega() -> str:
    """The script that draws Vega-Lite charts, as one file without requests.

    Bundling takes seconds, so the result is kept in the user's cache.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blitz"
    with extra("report", what="a report"):
        version = metadata.version("vl-convert-python")
    kept = folder / f"vega-{version}.js"
    try:
        return kept.read_text(encoding="utf-8")
    except OSError:
        pass
    with extra("report", what="a report"):
        import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as new:
            new.write_text(script, encoding="utf-8")
    except OSError:
        # Without a writable home the bundling is repeated each time; the report is still written.
        pass
    return script


def _tiles(record: Record) -> list[tuple[str, str, str]]:
    """The key values: each as (value, name, remark)."""
    tiles = []
    evaluation = record.evaluation
    if evaluation:
        value = evaluation["figures"].get(evaluation["best"])
        overall = evaluation["by_class"][0] if evaluation.get("by_class") else None
        interval = overall["interval"] if overall and evaluation["best"] == "accuracy" else None
        where = f"best, at step {evaluation['step']:,}"
        share = f"{where}; 95 %: {interval[0]:.1%} to {interval[1]:.1%}" if interval else where
        tiles.append((f"{value:.1%}" if interval else number(value), record.best, share + _last(record, record.best)))
        if evaluation["best"] != "loss":
            loss = number(evaluation["figures"]["loss"])
            tiles.append((loss, "val/loss", f"at step {evaluation['step']:,}{_last(record, 'val/loss')}"))
    planned = record.plan.get("total_steps")
    tiles.append(
        (f"{record.step:,}", f"of {planned:,} steps" if planned else "steps", f"{number(record.curves.epoch)} epochs")
    )
    if record.examples_per_second:
        tiles.append((number(record.examples_per_second), "examples a second", f"median; {_workers(record)}"))
    if record.seconds:
        starts = sum(event["what"] in ("started", "resumed") for event in record.events)
        remark = "in one go" if starts == 1 else f"of the steps that count, in {starts} starts"
        tiles.append((duration(sum(record.seconds.values())), "training", remark))
    if record.goodput:
        since = duration(sum(record.goodput.seconds.values()))
        tiles.append((f"{record.goodput.share:.0%}", "goodput", f"steps that count, of {since} since the first start"))
    return tiles


def _last(record: Record, name: str) -> str:
    """The same metric at the last step, if that is not the best."""
    result = record.result or {}
    last = result.get("last_metrics", {}).get(name)
    return f"; last {number(last)}" if last is not None and result["best_checkpoint"] != result["steps"] else ""


def _workers(record: Record) -> str:
    """The number of workers, as text."""
    counts = sorted(record.curves.world_sizes)
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} worker{'' if number == '1' else 's'}"


def _seconds(record: Record) -> list[tuple[str, float, float]]:
    """Each account of time, its seconds, and their share."""
    whole = sum(record.seconds.values())
    return [(ACCOUNTS[account], seconds, seconds / whole) for account, seconds in record.seconds.items()]


def _causes(record: Record) -> list[tuple[str, float, float]]:
    """What the time since the first start went to: each cause, its seconds, and their share."""
    seconds = record.goodput.seconds if record.goodput else {}
    whole = sum(seconds.values())
    return [(cause, spent, spent / whole) for cause, spent in seconds.items()]


def _attention_charts(evaluation: dict[str, Any] | None) -> dict[str, Chart]:
    """The attention of a translation, one chart for each random example that has it."""
    shown_examples = (evaluation or {}).get("examples", {}).get("random", [])
    return {
        f"attention {number}": _attention_chart(example["attention"])
        for number, example in enumerate(shown_examples[:_MOST_ATTENTIONS])
        if "attention" in example
    }


def _attention_chart(attention: dict[str, Any]) -> Chart:
    """Attention weights: the translation's pieces down, the source's across."""
    sources, pieces = attention["source"], attention["prediction"]
    cells = [
        {"from": column, "to": row, "source": source, "piece": piece, "share": share}
        for row, (piece, shares) in enumerate(zip(pieces, attention["weights"], strict=False))
        for column, (source, share) in enumerate(zip(sources, shares, strict=False))
    ]
    axis = {"domain": False, "ticks": False, "labelLimit": 90, "labelOverlap": False}
    return {
        "data": {"values": cells},
        "height": 22 * len(pieces),
        "mark": {"type": "rect", "cornerRadius": 2},
        "encoding": {
            "x": {
                "field": "from",
                "type": "ordinal",
                "title": None,
                "axis": {**axis, "labelExpr": _labels(sources), "orient": "top", "labelAngle": -40},
            },
            "y": {"field": "to", "type": "ordinal", "title": None, "axis": {**axis, "labelExpr": _labels(pieces)}},
            "color": {"field": "share", "type": "quantitative", "legend": None, "scale": {"domain": [0, 1]}},
            "tooltip": [
                {"field": "piece", "type": "nominal"},
                {"field": "source", "type": "nominal", "title": "looked at"},
                {"field": "share", "type": "quantitative", "format": ".0%"},
            ],
        },
    }


def _labels(words: Sequence[str]) -> str:
    """A Vega expression from an index to its word, since a word may occur twice."""
    return f"{json.dumps(list(words))}[datum.value]"
