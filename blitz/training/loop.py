"""The training loop: the same one in this process, on one GPU, on many and on many nodes.

It is given blocks of rows and its rank, and does not depend on where either comes from.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from blitz.data.plan import Block, Plan
from blitz.errors import Diverged, Stopped, require
from blitz.outputs.best import deciding_metric
from blitz.outputs.metrics import format_metric
from blitz.randomness import MASK64, Use, key_for
from blitz.recipe import Recipe
from blitz.run_files.directory import RunDirectory
from blitz.run_files.goodput import goodput_of
from blitz.training.after_evaluation import AfterEvaluation, Callback
from blitz.training.bad_row_log import BadRowLog
from blitz.training.batches import StepBatch, step_batches
from blitz.training.checkpoint import Checkpoint
from blitz.training.checkpoint_triggers import CheckpointTrigger
from blitz.training.checkpoint_writer import CheckpointWriter
from blitz.training.evaluation import Evaluation
from blitz.training.model import batch_norm_explained, build_forward, forward_and_loss, oom_hint
from blitz.training.optimizer import Optimizers
from blitz.training.progress import Progress
from blitz.training.session import Origin, Preemption, Session
from blitz.training.sharding import WHOLE, Part
from blitz.training.weight_average import WeightAverage, optimizer_state


@dataclass(frozen=True)
class Checkpoints:
    """When to write checkpoints, and which to keep."""

    every_steps: int | None = None
    """Write one after every so many steps too; one is always written after an evaluation and at the end."""
    every_seconds: float | None = None
    """Also write one once so many seconds have passed since the last."""
    keep: int = 2
    """Keep this many of the newest, and the best."""

    def __post_init__(self) -> None:
        for name, value in {"every-steps": self.every_steps, "keep": self.keep}.items():
            require(value is None or value >= 1, f"--checkpoint.{name} is {value}; it must be at least 1")
        seconds = self.every_seconds
        require(seconds is None or seconds > 0, f"--checkpoint.every-seconds is {seconds}; it must be above 0")


@dataclass(frozen=True)
class TrainJob:
    """A run, ready to be launched in this process or on Ray workers."""

    recipe: Recipe
    plan: Plan
    run: RunDirectory
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    command: str = ""
    """The command line that starts or resumes it, if that is known."""
    after_evaluation: Callback | None = None
    """Called beside the recipe's own `after_evaluation`."""
    began: float = field(default_factory=time.time)
    """When the command began, in seconds since 1970."""

    @property
    def first_step(self) -> Callable[[], int]:
        """Returns the step to start or resume at, that of the newest checkpoint; also works without torch."""
        return partial(self.run.newest_step, self.plan.total_steps)

    def start(self, blocks: Iterable[Block], session: Session) -> None:
        """Train."""
        part = Part.of_this_rank() if session.world.sharded else WHOLE
        with CheckpointWriter(self.run, keep=self.checkpoints.keep, part=part) as writer:
            train(self, blocks, writer, session)

    def saves_after(self, steps: int) -> bool:
        """Whether a checkpoint is written once `steps` steps are done."""
        every = self.checkpoints.every_steps
        return (
            (every is not None and steps % every == 0)
            or steps % self.plan.evaluate_every_steps == 0
            or steps == self.plan.total_steps
        )


def train(job: TrainJob, blocks: Iterable[Block], writer: CheckpointWriter, session: Session) -> None:
    """Train from the session's first step to the end of the plan and leave the run directory complete.

    `blocks` are this rank's from that step on; where it is not 0, the checkpoint of that step is loaded.

    Raises:
        UserError: if the recipe's loss is not one number a row, or if the storage does not take what is written.
        Stopped: once it has saved, if a stop is requested.
    """
    world, display = session.world, session.display
    training = _Training(job, writer, session)
    trigger = CheckpointTrigger(session, every_seconds=job.checkpoints.every_seconds)
    bad_rows = BadRowLog(job.recipe, job.plan, job.run, world=world, display=display)
    with training.record_outcome():
        if training.is_stopped(resumes=True):
            blocks = ()
        for block in training.clock.timed(blocks):
            valid = bad_rows.note(block)
            if block.chunk.split == "train":
                for batch in step_batches(block, job.plan, world, valid):
                    training.step(batch)
                    step = training.progress.step
                    if step % job.recipe.log_every_steps == 0 or step == job.plan.total_steps:
                        training.log()
                    # A run resumed from a checkpoint written before the evaluation that is due would never make it.
                    if job.plan.evaluates_after(step):
                        continue
                    signal = trigger.after(step)
                    if job.saves_after(step) or signal != Preemption.NONE:
                        training.save()
                        trigger.saved()
                    if signal == Preemption.STOP:
                        raise Stopped(f"stop requested: saved at step {step}; the same command resumes there")
            else:
                training.evaluate(block)
                if block.chunk.ends_pass:
                    training.save()
                    trigger.saved()
                    if training.is_stopped():
                        break
        training.finish()


class _Training:
    """The state of a run in progress, and the operations on it."""

    def __init__(self, job: TrainJob, writer: CheckpointWriter, session: Session) -> None:
        world, first_step = session.world, session.first_step
        self.job, self.writer, self.world, self.display = job, writer, world, session.display
        self.recipe = recipe = job.recipe
        self.module = build_forward(recipe, world, None if first_step else job.run)
        self.model = self.module.model
        self.optimizers = Optimizers(recipe, self.model, job.plan)
        self.average = WeightAverage.of(self.model, recipe, job.plan)
        self.progress = self._restore(first_step) if first_step else Progress()
        self.loss_sum = torch.tensor(self.progress.loss_sum, dtype=torch.float64, device=world.device)
        self.evaluation: Evaluation | None = None
        self.clock = session.clock
        self.clock.resume_from(self.progress.seconds)
        self.beside_checkpoint: dict[str, Any] = {}
        self.after_evaluation = AfterEvaluation(recipe, job.plan, writer, world, job.after_evaluation)
        if world.leads:
            self._begin(first_step, session.origin)

    def _begin(self, first_step: int, origin: Origin | None) -> None:
        """Note where the run starts, and which checkpoints were passed over because they are damaged."""
        damaged = self.job.run.damaged_after(first_step)
        for step in damaged:
            from_where = f"the run resumes from step {first_step}" if first_step else "the run starts again"
            self.display.line(f"the checkpoint of step {step} is damaged and is deleted; {from_where}")
        more: dict[str, Any] = {"damaged": damaged} if damaged else {}
        more |= {"began": self.job.began, "counted": self.progress.seconds, **(asdict(origin) if origin else {})}
        if (written := self.job.run.written_at("metrics.jsonl")) is not None:
            more["last_written"] = written
        reached = self.writer.begin(first_step)
        self._note("resumed" if first_step else "started", reached=reached, command=self.job.command, **more)

    def _wrap(self) -> None:
        """Wrap `model` for training steps; evaluation and checkpoints use it unwrapped.

        DistributedDataParallel has to be built again when the set of trained parameters changes.
        """
        self.replica = self.world.replicate(self.module, find_unused_parameters=self.recipe.find_unused_parameters)
        self.clock.measure(self.replica)
        self.forward: nn.Module = torch.compile(self.replica) if self.recipe.compile else self.replica  # type: ignore[assignment]
        self.gradients_checked = False

    def _restore(self, step: int) -> Progress:
        checkpoint = Checkpoint.load(self.job.run, step, self.model.state_dict())
        checkpoint.give_weights(self.model, self.job.run)
        if self.average is not None:
            self.average.restore(checkpoint.optimizer, step)
        self.optimizers.load_state(optimizer_state(checkpoint.optimizer))
        return Progress.of(checkpoint.state, self.world)

    def step(self, batch: StepBatch) -> None:
        """One optimizer step on the global batch."""
        recipe, world, progress = self.recipe, self.world, self.progress
        if self.optimizers.freeze(progress.step):
            self._wrap()
        world.seed_generators(key_for(Use.GENERATORS, recipe.seed, progress.step, world.rank))
        micro_batches, choices = list(batch.micro_batches(recipe)), recipe.choices(batch.step_draws)
        skips = recipe.on_nan == "skip"
        before = self.loss_sum.clone() if skips else None
        norms = partial(batch_norm_explained, recipe, share=len(batch.weights), world_size=world.size)
        for number, (columns, weights) in enumerate(micro_batches, start=1):
            with self._gradients(shared=number == len(micro_batches)), oom_hint(len(weights)), norms():
                _, losses = forward_and_loss(recipe, self.forward, columns, world.device, choices)
                loss = torch.dot(losses, weights.to(losses.dtype))
                loss.backward()
            if not self.gradients_checked:
                self._check_gradients()
            self.loss_sum.add_(loss.detach(), alpha=batch.rows / world.size)
        # The norm is that of the global batch, as the gradients are: every rank finds the same.
        finite = self.optimizers.clip(look=skips)
        if before is not None and not finite:
            self.loss_sum.copy_(before)
            self.display.line(f"step {progress.step + 1} is left out: its gradient is not finite")
        else:
            self.optimizers.step(progress.step)
            progress.loss_rows += batch.rows
        if self.average is not None:
            self.average.update(progress.step + 1)
        self.optimizers.zero_grad()

        progress.step += 1
        progress.rows_digest = (progress.rows_digest + batch.digest) & MASK64
        self.clock.step(batch.rows)
        self.display.step(progress.step)

    def _gradients(self, *, shared: bool) -> AbstractContextManager[None]:
        """Whether the backward pass in this context averages gradients over the ranks.

        Those of a sharded model it always averages: otherwise every rank would hold the gradients of the whole model.
        """
        if shared or not isinstance(self.replica, DistributedDataParallel):
            return nullcontext()
        return self.replica.no_sync()

    def _check_gradients(self) -> None:
        """Refuse parameters without a gradient, for which several workers would wait forever."""
        self.gradients_checked = True
        if self.world.size == 1 or self.recipe.find_unused_parameters:
            return
        unused = [name for name, one in self.model.named_parameters() if one.requires_grad and one.grad is None]
        require(
            not unused,
            f"recipe {self.recipe.name}: the loss does not depend on {', '.join(unused)}; on several workers add "
            "--find-unused-parameters, or leave them out of the model",
        )

    def log(self) -> None:
        """Write the mean training loss since the last logged step."""
        progress = self.progress
        if not progress.loss_rows:
            return
        loss = self.world.sum(self.loss_sum).item() / progress.loss_rows
        self._require_finite("training loss", loss)
        self.loss_sum.zero_()
        progress.loss_rows = 0
        self.display.loss(loss)
        self._write(
            {
                "train/loss": loss,
                **self.optimizers.rates(),
                **self.clock.lap(),
                "world_size": self.world.size,
            }
        )

    def _require_finite(self, what: str, value: float) -> None:
        """Raise Diverged, with advice, if a value, which is the same on every rank, is not finite."""
        if not math.isfinite(value):
            raise Diverged(
                f"the {what} is {value} at step {self.progress.step}; start with a lower --optim.lr or with "
                "--optim.grad-clip-norm 1, or resume from the last checkpoint with --on-nan skip"
            )

    def evaluate(self, block: Block) -> None:
        """Add a block of evaluation rows to the pass in progress, or start one."""
        with self.clock.on("evaluation"), self._averaged():
            if self.evaluation is None:
                self.evaluation = Evaluation(self.module, self.world)
            self.evaluation.add(block)
            if block.chunk.ends_pass:
                self._finish_evaluation(self.evaluation)

    def _averaged(self) -> AbstractContextManager[None]:
        """Within this context the model has the weights that are evaluated and stored."""
        return nullcontext() if self.average is None else self.average.in_model()

    def _finish_evaluation(self, evaluation: Evaluation) -> None:
        """Write the metrics of the pass and see whether they are the best."""
        sums, values = evaluation.finish()
        progress, recipe = self.progress, self.recipe
        deciding = deciding_metric(recipe.best, recipe.metrics(), sums)
        is_first = progress.best is None
        if progress.evaluated(values, deciding, min_delta=recipe.min_delta):
            record = evaluation.record(sums, values, split="val", step=progress.step)
            self.beside_checkpoint = {"evaluations/best.json": record}
        evaluation.close()
        self.evaluation = None
        self._write(progress.metrics)
        if is_first and deciding.why:
            self.display.line(deciding.why)
        names = dict.fromkeys(("loss", deciding.metric))
        shown = "  ".join(f"val/{name} {format_metric(values[name])}" for name in names)
        self.display.line(f"step {progress.step}: {shown}")

    def save(self) -> None:
        """Start writing a checkpoint."""
        with self.clock.on("checkpoint"):
            self._save()

    def _save(self) -> None:
        progress = replace(
            self.progress,
            rows_digest=self.world.sum_digest(self.progress.rows_digest),
            loss_sum=self.world.sum(self.loss_sum).item(),
            seconds={str(account): spent for account, spent in self.clock.total.items()},
        )
        self._require_finite("training loss", progress.loss_sum)
        self._require_finite("norm of the weights", nn.utils.get_total_norm(self.model.parameters()).item())
        self.world.share_buffers(self.model)
        if self.world.leads or self.world.sharded:
            optimizer, best = self.optimizers.state(), progress.best.step if progress.best else None
            if self.average is not None:
                # Copied, because the model gets the averages for as long as the checkpoint is taken.
                optimizer |= {name: weight.detach().clone() for name, weight in self.average.trained().items()}
            with self._averaged():
                checkpoint = Checkpoint(progress.step, self.model.state_dict(), optimizer, asdict(progress))
                beside = self.beside_checkpoint if self.world.leads else {}
                self.writer.save(checkpoint, best=best, beside=beside)
        self.beside_checkpoint = {}

    def is_stopped(self, *, resumes: bool = False) -> bool:
        """Call `after_evaluation`, if there is one; whether it, or the recipe's patience, stops the run."""
        progress, patience, plan = self.progress, self.recipe.patience, self.job.plan
        with self.clock.on("evaluation"), self._averaged():
            stops = self.after_evaluation(self.model, {**self._at, **progress.metrics}, resumes=resumes)
            if patience is not None:
                # Rank 0 decides: metrics that machines of two kinds compute may differ in their last bit.
                runs_out = self.world.leads and progress.is_out_of_patience(patience, plan)
                stops |= bool(self.world.sum(torch.tensor(int(runs_out))))
        return stops

    def finish(self) -> None:
        """Write result.json, after everything else is written."""
        progress = self.progress
        digest = self.world.sum_digest(progress.rows_digest)
        if self.world.leads:
            with self.clock.on("checkpoint"):
                self.writer.finish()
            self._note("finished", **self.clock.lap(), counted=self.clock.total)
            result = replace(progress, rows_digest=digest).result(self.job.plan, patience=self.recipe.patience)
            spent = goodput_of(self.job.run)
            more = {"goodput": spent.to_json()} if spent else {}
            self.job.run.write_json("result.json", {**result, **self.after_evaluation.outcome(), **more})

    @contextmanager
    def record_outcome(self) -> Iterator[None]:
        """Add what ends the run early in this context to its events, if the storage can still be written."""
        try:
            yield
        except BaseException as error:
            if self.world.leads:
                why = (str(error).splitlines() or [""])[0]
                kinds = {KeyboardInterrupt: "interrupted", Stopped: "stopped"}
                what = kinds.get(type(error), "failed")
                with suppress(OSError):
                    self._note(what, error=f"{type(error).__name__}: {why}" if why else type(error).__name__)
            raise

    def _note(self, what: str, **more: Any) -> None:
        """Add to the run's events; `time` is in seconds since 1970."""
        where = {"time": round(time.time(), 3), "step": self.progress.step, "world_size": self.world.size}
        self.job.run.add_event({"what": what, **where, "device": self.world.device.type, **more})

    def _write(self, values: dict[str, float]) -> None:
        if self.world.leads:
            self.writer.add_metrics({**self._at, **values})

    @property
    def _at(self) -> dict[str, float]:
        """How every line of metrics.jsonl begins."""
        step = self.progress.step
        return {"step": step, "epoch": round(step / self.job.plan.steps_per_epoch, 4)}
