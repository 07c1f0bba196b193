"""A recipe's `after_evaluation`: called on rank 0 once an evaluation and its checkpoint are written."""

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from blitz.data.plan import Plan
from blitz.errors import RunFailed, UserError, require
from blitz.recipe import Recipe
from blitz.training.checkpoint_writer import CheckpointWriter
from blitz.training.world import World

Callback = Callable[[nn.Module, Mapping[str, float], Any], bool | None]
"""Takes what `Recipe.after_evaluation` takes; False stops the run."""

_MARK = "after_evaluation.json"
"""The step that the callbacks have last returned for. A run that was killed before calls them when it resumes."""


class AfterEvaluation:
    """The recipe's own method and a callback that was passed beside it; costs nothing where there is neither."""

    def __init__(
        self, recipe: Recipe, plan: Plan, writer: CheckpointWriter, world: World, passed: Callback | None
    ) -> None:
        self._recipe, self._plan, self._writer, self._world = recipe, plan, writer, world
        own = type(recipe).after_evaluation is not Recipe.after_evaluation
        self._callbacks = [*([recipe.after_evaluation] if own else []), *([passed] if passed else [])]
        self._stops = False
        require(
            not (self._callbacks and world.sharded),
            f"recipe {recipe.name}: after_evaluation is called on rank 0, which with --scale.shard full has only a "
            "part of the model; leave one of them out",
        )

    def __call__(self, model: nn.Module, metrics: Mapping[str, float], *, resumes: bool = False) -> bool:
        """Call them, on rank 0; whether the run stops, on every rank.

        `resumes`: call them for the checkpoint that a run resumes from, unless they were called for it before.
        """
        if self._callbacks:
            stops = self._world.leads and (self._missed if resumes else self._call)(model, metrics)
            self._stops = bool(self._world.sum(torch.tensor(int(stops))))
        return self._stops

    def outcome(self) -> dict[str, int]:
        """What result.json says of a run that one of them has stopped: of how many steps it would have been."""
        return {"stopped_before": self._plan.total_steps} if self._stops else {}

    def _missed(self, model: nn.Module, metrics: Mapping[str, float]) -> bool:
        step = int(metrics["step"])
        if not step or not self._plan.evaluates_after(step):
            return False
        called = self._writer.run.read_json(_MARK)
        if called is None or called["step"] < step:
            return self._call(model, metrics)
        # A longer plan asks for more steps than the run was stopped at.
        return bool(called["step"] == step and called["stopped_before"] == self._plan.total_steps)

    def _call(self, model: nn.Module, metrics: Mapping[str, float]) -> bool:
        # Until then the checkpoint is being written.
        self._writer.finish()
        with _evaluating(model), torch.no_grad():
            answers = [self._answer(callback, model, metrics) for callback in self._callbacks]
        stops = any(answer is False for answer in answers)
        stopped_before = self._plan.total_steps if stops else None
        self._writer.run.write_json(_MARK, {"step": int(metrics["step"]), "stopped_before": stopped_before})
        return stops

    def _answer(self, callback: Callback, model: nn.Module, metrics: Mapping[str, float]) -> bool | None:
        try:
            return callback(model, dict(metrics), self._writer.run)
        except Exception as error:
            # The line of the callback itself: what it has called may be deep in a library.
            frame = traceback.extract_tb(error.__traceback__)[1:2]
            where = "".join(f" ({one.filename.rpartition('/')[2]}:{one.lineno})" for one in frame)
            said = (str(error).splitlines() or [""])[0]
            raise RunFailed(
                f"after_evaluation{where} of recipe {self._recipe.name} failed at step {int(metrics['step'])}: "
                f"{type(error).__name__}: {said}; mend it, and the same command calls it again and resumes there"
            ) from error


def require_callback(callback: Any) -> None:
    """Refuse what cannot be called with a model, metrics and a run.

    Raises:
        UserError: if it is no such function.
    """
    require(callable(callback), f"after_evaluation= is {type(callback).__name__}; it must be a function")
    try:
        inspect.signature(callback).bind(None, None, None)
    except TypeError as error:
        raise UserError(f"after_evaluation= must take (model, metrics, run): {error}") from error


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; a part that its recipe has frozen is left as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
