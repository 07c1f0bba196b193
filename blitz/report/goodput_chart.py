"""What a run spent its time on since its first start, as a bar over time."""

from blitz.report.curves import Chart
from blitz.report.record import Record
from blitz.run_files.goodput import CAUSES

_MINUTE_S = 60.0
_MOST_SPANS = 2000
"""Of a run that was started very often the shortest are not drawn."""


def goodput_chart(record: Record) -> Chart | None:
    """The bar; each start of the run is drawn as its start-up, steps, evaluation, checkpoints and losses."""
    if record.goodput is None or not record.goodput.spans:
        return None
    spans, first = record.goodput.spans, record.goodput.spans[0].begins
    unit, title = (_MINUTE_S, "minutes") if sum(span.seconds for span in spans) > 2 * _MINUTE_S else (1.0, "seconds")
    drawn = sorted(spans, key=lambda span: -span.seconds)[:_MOST_SPANS]
    bars = [
        {
            "cause": span.cause,
            "from": (span.begins - first) / unit,
            "to": (span.begins + span.seconds - first) / unit,
            "seconds": span.seconds,
        }
        for span in sorted(drawn, key=lambda span: span.begins)
    ]
    present = [cause for cause in CAUSES if any(bar["cause"] == cause for bar in bars)]
    return {
        "data": {"values": bars},
        "height": 44,
        "mark": {"type": "bar"},
        "encoding": {
            "x": {"field": "from", "type": "quantitative", "title": f"{title} since the first start"},
            "x2": {"field": "to"},
            "color": {"field": "cause", "type": "nominal", "sort": present, "title": None},
            "tooltip": [
                {"field": "cause", "type": "nominal", "title": "time"},
                {"field": "seconds", "type": "quantitative", "format": ",.1f"},
            ],
        },
    }
