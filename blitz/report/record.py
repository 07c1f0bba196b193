"""The files of a run, read once for its report."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blitz.errors import DamagedFile, UserError
from blitz.report.series import ACCOUNTS, Curves
from blitz.run_files.directory import RunDirectory
from blitz.run_files.goodput import Goodput, goodput_of

_ENDS = ("finished", "failed", "interrupted", "stopped")


@dataclass(frozen=True)
class Record:
    """A run."""

    name: str
    uri: str
    recipe: dict[str, Any]
    """The content of recipe.json."""
    plan: dict[str, Any]
    curves: Curves
    """The content of metrics.jsonl."""
    events: list[dict[str, Any]]
    result: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    """That of the best checkpoint, or the newest made by blitz evaluate if the run kept none."""
    explanation: dict[str, Any] | None
    """Of a table: what its model has learned, by the rows of that evaluation."""
    bad_rows: int
    pictures: list[str]
    """What the recipe's `picture` drew, as `data:` URIs."""
    goodput: Goodput | None = None

    @property
    def state(self) -> str:
        """finished, failed, interrupted, stopped, or running or cut off."""
        if self.result:
            return "finished"
        last = self.events[-1]["what"] if self.events else ""
        return last if last in _ENDS else "running or cut off"

    @property
    def step(self) -> int:
        """The number of steps done."""
        return int(self.result["steps"]) if self.result else self.curves.step

    @property
    def best(self) -> str:
        """Name of the metric that decides which checkpoint is the best, as `val/accuracy`."""
        return f"val/{self.evaluation['best']}" if self.evaluation else "val/loss"

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the best checkpoint, by names such as `val/accuracy`; without those of single classes."""
        if self.evaluation is None:
            return {}
        split = self.evaluation["split"]
        return {f"{split}/{name}": value for name, value in self.evaluation["figures"].items() if "/" not in name}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by account (compute, data, …), over the steps that count."""
        measured = [self.curves.seconds, *self.events]
        spent = {account: sum(line.get(f"{account}_seconds", 0.0) for line in measured) for account in ACCOUNTS}
        return spent if any(spent.values()) else {}

    @property
    def examples_per_second(self) -> float | None:
        """The median; in a long run the median of means over neighbouring lines."""
        series = self.curves.series.get("examples_per_second")
        rates = sorted(series.means) if series else []
        return rates[len(rates) // 2] if rates else None

    @property
    def started(self) -> datetime | None:
        """When it was started."""
        return datetime.fromtimestamp(self.events[0]["time"], UTC) if self.events else None

    @property
    def command(self) -> str:
        """The newest command line that started or resumed it."""
        typed: list[str] = [event["command"] for event in self.events if event.get("command")]
        return typed[-1] if typed else ""

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe, flat: names such as `optim.lr`."""
        return dict(_leaves(self.recipe))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_record(run: RunDirectory) -> Record:
    """The run in a directory.

    Raises:
        UserError: if there is none.
    """
    recipe = run.read_json("recipe.json")
    if recipe is None:
        raise UserError(f"there is no run in {run}: it has no recipe.json")
    evaluation = run.read_json("evaluations/best.json") or _newest_evaluation(run)
    explained = evaluation and run.read_json(f"explanations/{evaluation['split']}-{evaluation['step']}.json")
    return Record(
        name=run.name,
        uri=run.uri,
        recipe=recipe,
        plan=run.read_json("plan.json") or {},
        curves=Curves.of(run.each_metric()),
        events=run.events(),
        result=run.read_json("result.json"),
        evaluation=evaluation,
        explanation=explained,
        bad_rows=max(0, len(run.bad_rows())),
        pictures=[_uri(run, name) for name in _newest_pictures(run)],
        goodput=_goodput(run),
    )


def _goodput(run: RunDirectory) -> Goodput | None:
    newest: dict[str, Any] = {}
    # A report on a run whose newest checkpoint is damaged is of use.
    with suppress(DamagedFile):
        steps = run.checkpoint_steps()
        newest = (run.read_json(f"checkpoints/{steps[-1]}/state.json") or {}) if steps else {}
    return goodput_of(run, checkpoint=newest.get("seconds"), until=run.written_at("metrics.jsonl"))


def _newest_evaluation(run: RunDirectory) -> dict[str, Any] | None:
    found = [run.read_json(f"evaluations/{name}") for name in run.names("evaluations") if name.endswith(".json")]
    # Those written by older versions lack "best".
    whole = [one for one in found if one is not None and "best" in one]
    return max(whole, key=lambda one: one["step"], default=None)


def _newest_pictures(run: RunDirectory) -> list[str]:
    names = [name for name in run.names("pictures") if name.endswith(".png")]
    steps = {name: int(name.removesuffix(".png").rpartition("-")[2]) for name in names if name[:-4][-1:].isdigit()}
    return [name for name, step in sorted(steps.items()) if step == max(steps.values())]


def _uri(run: RunDirectory, name: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(run.read(f'pictures/{name}')).decode()}"


def differing(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Settings in which runs differ, and the value of each run."""
    settings = [record.settings for record in records]
    names = dict.fromkeys(name for one in settings for name in one)
    values = {name: [one.get(name) for one in settings] for name in names}
    return {name: each for name, each in values.items() if len({json.dumps(one) for one in each}) > 1}
