"""The summary of a run that is printed at its end."""

from blitz.report.formatting import duration, number, sparkline
from blitz.report.record import Record
from blitz.report.series import ACCOUNTS


def summary_lines(record: Record, *, plain: bool) -> list[str]:
    """The loss curve in one line, and how time was spent; `plain` is for terminals that know only ASCII."""
    lines = []
    series = record.curves.series.get("train/loss")
    losses = series.means if series else []
    if len(losses) > 1:
        drawn = sparkline(losses, plain=plain)
        lines.append(f"{'train/loss':24} {drawn}  {number(losses[0])} to {number(losses[-1])}")
    whole = sum(record.seconds.values())
    if whole:
        shares = ", ".join(f"{spent / whole:.0%} {ACCOUNTS[account]}" for account, spent in record.seconds.items())
        lines.append(f"{'time':24} {duration(whole)}: {shares}")
    return lines
