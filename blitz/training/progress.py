"""The progress of a run: what a checkpoint holds beside the weights and the optimizer's state."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from blitz.data.plan import Plan
from blitz.errors import require
from blitz.outputs.best import Deciding
from blitz.training.world import World


@dataclass(frozen=True)
class BestEvaluation:
    """The evaluation of the best checkpoint so far."""

    step: int
    value: float
    """The value of the deciding metric."""
    metric: str = ""
    """The deciding metric, without `val/`; like the next field, empty in checkpoints of older versions."""
    loss: float = math.nan
    metrics: dict[str, float] = field(default_factory=dict)
    """All metrics, by names such as `val/loss`."""


@dataclass
class Progress:
    """The progress of a run."""

    step: int = 0
    rows_digest: int = 0
    """This rank's part; on rank 0 including the sum over all ranks at the start. `loss_sum` likewise."""
    loss_sum: float = 0.0
    """Sum of the losses of the rows since the last logged step."""
    loss_rows: int = 0
    """Rows, over all ranks, since the last logged step."""
    best: BestEvaluation | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """The metrics of the newest evaluation."""
    waited: int = 0
    """Evaluations since the deciding metric last improved by more than the recipe's `min_delta`."""
    improved_from: float | None = None
    """The value that the next improvement is measured from."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By account: how rank 0 has spent the time of the steps that count."""

    def evaluated(self, values: Mapping[str, float], deciding: Deciding, *, min_delta: float = 0.0) -> bool:
        """Record the evaluation at `step`; returns whether it is the best so far.

        Raises:
            UserError: if the deciding metric is not among `values`.
        """
        value, loss = deciding.value(values), values["loss"]
        self.metrics = {f"val/{name}": one for name, one in values.items()}
        if self.best and self.best.metric not in ("", deciding.metric):
            # Values of other validation rows, or of another metric, cannot be compared.
            self.best, self.improved_from = None, None
        sign = -1.0 if deciding.higher_is_better else 1.0
        best = self.best
        # Any value is better than none, or than NaN.
        is_best = (
            best is None
            or math.isnan(best.value)
            or sign * value < sign * best.value
            or (value == best.value and loss < best.loss)
        )
        if is_best:
            self.best = BestEvaluation(self.step, value, deciding.metric, loss, self.metrics)
        start = self.improved_from
        improves = start is None or sign * (start - value) > min_delta
        # Without a least change an equal value at a lower loss is an improvement too, as it is for the best checkpoint.
        if not math.isnan(value) and (improves or (is_best and min_delta == 0)):
            self.waited, self.improved_from = 0, value
        else:
            self.waited += 1
        return is_best

    def is_out_of_patience(self, patience: int | None, plan: Plan) -> bool:
        """Whether the run stops early here: `patience` evaluations have brought no improvement."""
        return patience is not None and self.waited >= patience and plan.evaluates_after(self.step)

    def result(self, plan: Plan, *, patience: int | None = None) -> dict[str, Any]:
        """What result.json holds; `rows_digest` must be the sum over all ranks."""
        best = self.best
        stops = self.step < plan.total_steps and self.is_out_of_patience(patience, plan)
        return {
            "steps": self.step,
            "epochs": self.step / plan.steps_per_epoch,
            "metrics": (best.metrics if best else {}) or self.metrics,
            "last_metrics": self.metrics,
            "best_checkpoint": best.step if best else self.step,
            **({"best_metric": f"val/{best.metric}"} if best and best.metric else {}),
            "rows_digest": f"{self.rows_digest:016x}",
            **({"stopped_before": plan.total_steps, "patience": patience} if stops else {}),
        }

    @classmethod
    def stored(cls, state: Mapping[str, Any]) -> "Progress":
        """The progress that `asdict` gave."""
        known = {spec.name: state[spec.name] for spec in fields(cls) if spec.name in state}
        return cls(**{**known, "best": BestEvaluation(**state["best"]) if state["best"] else None})

    @classmethod
    def of(cls, state: dict[str, Any], world: World) -> "Progress":
        """The progress that a checkpoint's state holds, as this rank resumes from it."""
        # Checkpoints of older versions lack the last three.
        missing = [spec.name for spec in fields(cls)[:-3] if spec.name not in state]
        lacks = f"the state.json of checkpoint {state['step']} lacks {', '.join(missing)}; delete its folder"
        require(not missing, lacks)
        progress = cls.stored(state)
        return progress if world.leads else replace(progress, rows_digest=0, loss_sum=0.0)
