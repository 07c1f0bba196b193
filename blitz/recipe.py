"""The contract of a training task: its hyperparameters are fields, its behaviour is methods.

A recipe is a frozen dataclass in a file of its own under `blitz/recipes/`; the file's name is its name on the command
line and every field is a flag.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self

import torch
import tyro
from torch import Tensor, nn

from blitz.data.arrays import MapStyleDataset
from blitz.data.plan import Plan, Split
from blitz.errors import UserError, require
from blitz.fields import COUNTS
from blitz.fields import may_change as may_change
from blitz.optim import Group, Optim, Swa
from blitz.outputs.best import Best
from blitz.outputs.examples import Example, class_examples, number_examples
from blitz.outputs.extra_metrics import is_extra
from blitz.outputs.metric_set import MetricSet
from blitz.outputs.metrics import Classification, Distance, Loss, Metrics, Regression
from blitz.outputs.predictions import class_predictions
from blitz.project import name_of, sources_of
from blitz.randomness import Draws as Draws
from blitz.randomness import StepDraws as StepDraws
from blitz.weights_source import Pretrained as Pretrained
from blitz.weights_source import WeightsSource as WeightsSource

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Batch = Mapping[str, Tensor]


class RunFiles(Protocol):
    """The directory of a run, as `after_evaluation` gets it; paths are relative to it, such as `pictures/3.png`."""

    @property
    def uri(self) -> str:
        """An absolute path or a URI, by which `blitz.open` opens the run."""

    @property
    def name(self) -> str:
        """The run's name."""

    def exists(self, path: str) -> bool:
        """Whether a file is there."""

    def read(self, path: str) -> bytes:
        """A file's bytes."""

    def write(self, path: str, data: bytes) -> None:
        """Write a file whole."""


@dataclass(frozen=True)
class Recipe(ABC):
    """A training task: the fields below, and methods that define its data, model, loss and metrics.

    Batches are dictionaries of tensors whose first dimension is the rows; unless a recipe says otherwise they hold
    `inputs` and `targets`.
    """

    seed: int = 0
    """Decides the initial weights, the order of the rows and every other random choice."""
    init_seed: int | None = None
    """Decides the initial weights instead of `seed`: other weights, on the same rows with the same dropout."""
    epochs: int = may_change(1)
    """Passes over the training rows."""
    max_steps: int | None = may_change(None)
    """Stop after this many optimizer steps, if that is sooner."""
    max_train_rows: int | None = None
    """Train on the first so many rows only, for a quick try."""
    max_eval_rows: int | None = may_change(None)
    """Evaluate on the first so many rows only."""
    global_batch_size: int = 32
    """Rows a step, over all workers."""
    micro_batch_size: int | None = may_change(None)
    """Rows a forward pass on each worker; the gradient is summed up to the whole batch."""
    evaluate_every_steps: int | None = None
    """Evaluate after every so many steps; by default after each epoch."""
    best: Best = Best()
    extra_metrics: tuple[str, ...] = may_change(())
    """Further metrics of evaluations: for classes f1, auroc, average_precision, threshold, log_loss, perplexity, brier
    and calibration_error; for numbers mape and quantile_loss_0.9 or another level; for translations chrf."""
    patience: int | None = may_change(None)
    """Stop early after this many evaluations in a row without an improvement of --best.metric."""
    min_delta: float = 0.0
    """The metric must improve by more than this to count as an improvement."""
    log_every_steps: int = may_change(50)
    """Write the mean training loss after every so many steps."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 runs the forward pass under autocast; weights stay fp32."""
    compile: bool = False
    """Compile the model with torch.compile."""
    recompute: bool = may_change(False)
    """Keep no activations of the model's repeated blocks for the backward pass, which computes them again: less memory,
    more time, and the same results."""
    channels_last: bool = False
    """Keep images as (batch, height, width, channels) in memory: faster convolutions on GPUs."""
    on_nan: Literal["stop", "skip"] = may_change("stop")
    """What to do about a loss or gradient that is not finite: end the run before it is saved, or skip the step, which
    means checking every step's gradients."""
    find_unused_parameters: bool = False
    """On several workers: allow a loss that does not depend on all parameters, at the cost of traversing each graph."""
    sync_batch_norm: bool = False
    """Batch statistics over all workers rather than over each one's share."""
    optim: Optim = Optim()
    ema: float | None = None
    """Decay of an exponential moving average of the weights, such as 0.999; the average is evaluated and kept."""
    swa: Swa = Swa()
    init_from: str | None = may_change(None)
    """Initialise from the weights of another run, or of a file (.safetensors, .pth or .pt), as far as they fit."""
    init_checkpoint: Literal["best", "last"] | int = may_change("best")
    """Which checkpoint of that run: the best, the newest, or that of a step."""
    begins_with: Annotated[WeightsSource | None, tyro.conf.Suppress] = None

    def __post_init__(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{name.replace('_', '-')} is {value}; it must be at least 1")
        require(self.ema is None or 0 < self.ema < 1, f"--ema is {self.ema}; it must be above 0 and below 1")
        require(self.ema is None or self.swa.from_epoch is None, "--ema and --swa.from-epoch: give one of them")
        require(self.min_delta >= 0, f"--min-delta is {self.min_delta}; it must not be below 0")
        for flag, seed in (("--seed", self.seed), ("--init-seed", self.init_seed)):
            require(seed is None or 0 <= seed < 1 << 63, f"{flag} is {seed}; it must be in [0, 2^63)")

    @property
    def name(self) -> str:
        """The name on the command line: that of the recipe's file."""
        return name_of(type(self))

    def sources(self) -> dict[str, str]:
        """The text of the user's files that it consists of, by path: its code, and what of the project that imports."""
        return sources_of(type(self))

    def fitted(self) -> Self:
        """This recipe with what it takes from its training data, such as class names and scales; by default itself."""
        return self

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that the recipe has: `test` too if it is tested."""
        return ("train", "val", "test") if self.is_tested else ("train", "val")

    @property
    def is_tested(self) -> bool:
        """Whether the best checkpoint is evaluated on `test` at the end of the run; by default not."""
        return False

    @abstractmethod
    def dataset(self, split: Split) -> MapStyleDataset:
        """The rows to train on or to evaluate on."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """A new model; its initial weights are drawn from the ambient generator, which is seeded."""

    @property
    def uses_other_weights(self) -> bool:
        """Whether the model is initialised from other weights, rather than at random."""
        return self.init_from is not None

    def pretrained(self) -> Pretrained | None:
        """Initial weights if `init_from` names none, as far as they fit; by default none.

        Called once, where the run is started; they are kept in the run.
        """
        return None

    def parameter_groups(self, model: nn.Module, steps_per_epoch: int) -> Sequence[Group]:
        """The parameters in groups, by how they are learned; by default one group of all that require gradients.

        Each of those is in one group. A group may have a learning rate of its own, an optimizer of its own, as each of
        two networks that are learned together has, or be frozen, for good or until a step.
        """
        return [Group("all", [parameter for parameter in model.parameters() if parameter.requires_grad])]

    def sharded_blocks(self, model: nn.Module) -> Sequence[nn.Module] | None:
        """The parts of a model that `--recompute` computes again, and that are whole in a sharded one only while each
        computes, by their own `forward`.

        By default, None, the repeated blocks: members of a `ModuleList` or `Sequential` of which two are of one type.
        """
        return None

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        """Random augmentation of fetched columns in training, on the device, before `preprocess`.

        By default none. What is drawn from `draws` is the same on any number of workers.
        """
        return batch

    @property
    def rows_together(self) -> int:
        """2 if `augment` mixes rows with their `draws.partners`, which one worker must hold; by default 1."""
        return 1

    def preprocess(self, batch: Batch) -> Batch:
        """Turns fetched columns into the model's inputs, on the device; by default unchanged."""
        return batch

    def choices(self, draws: StepDraws) -> dict[str, Any]:
        """Random choices of a training step for all its rows: keyword arguments of `forward`; by default none.

        Evaluation passes none, so that it is deterministic: the defaults of `forward` hold there. Where a choice
        leaves weights out, set `find_unused_parameters`: they and their momentum do not change in such a step.
        """
        return {}

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """The model's outputs for a batch; for a `ModuleDict` of several networks, whatever `loss` needs."""
        return model(batch["inputs"])

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """The loss of each row, of shape (batch,): not their mean, which the loop takes over all workers."""

    def inputs(self, csv: str) -> MapStyleDataset:
        """The rows of a CSV to predict for, with no need of targets; bad rows are among them.

        They are `blitz.data.csv.table.InputRows`, as the CSV data sets of blitz are.

        Raises:
            UserError: if the recipe takes none.
        """
        raise UserError(f"recipe {self.name} does not predict from a CSV: it has no method `inputs`")

    def line_inputs(self, lines: list[str]) -> MapStyleDataset:
        """Rows to predict for, one for each line of a text.

        Raises:
            UserError: if the recipe takes none.
        """
        raise UserError(f"recipe {self.name} does not predict from lines of text; name a CSV")

    def predictions(self, outputs: Any, batch: Batch) -> dict[str, list[str] | list[float]]:
        """The predictions for each row, as named columns of text or numbers.

        By default the class and its probability if `metrics` knows the classes, else the outputs themselves.
        """
        if classes := self._classes():
            return class_predictions(outputs, classes)
        values = outputs.double().reshape(len(outputs), -1)
        names = ["prediction"] if values.shape[1] == 1 else [f"prediction_{n}" for n in range(values.shape[1])]
        return dict(zip(names, values.T.tolist(), strict=True))

    def deployed(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """What an exported model returns for fetched columns, without targets: named tensors (batch, …).

        By default `probabilities` for a classifier, else `outputs`. It is traced: what depends on
        values must be a computation with tensors, and the number of rows may vary.
        """
        outputs = self.forward(model, self.preprocess(batch))
        return {"probabilities": outputs.softmax(1)} if self._classes() else {"outputs": outputs}

    def signature(self) -> dict[str, Any]:
        """What a user of an exported model must know besides shapes, as JSON: by default the names of the classes."""
        classes = self._classes()
        return {"classes": list(classes)} if classes else {}

    def _classes(self) -> tuple[str, ...]:
        metrics = self.metrics()
        return metrics.classes if isinstance(metrics, Classification) else ()

    def picture(self, model: nn.Module, split: Split) -> "Figure | None":
        """A picture of what the model, on the CPU and in evaluation mode, does with rows of a split; by default none.

        Matplotlib is slow to import: do so in here.
        """
        return None

    def after_evaluation(self, model: nn.Module, metrics: Mapping[str, float], run: RunFiles) -> bool | None:
        """Called after each evaluation while training, once its checkpoint is written; by default nothing.

        On several workers rank 0 alone calls it, and the others wait. An error in it ends the run. It is called once
        for each evaluation; only a run that is killed while it is in here calls it again, when it resumes.

        Args:
            model: on its device, in evaluation mode and under `torch.no_grad`; to be looked at, not changed.
            metrics: `step`, `epoch` and the metrics of the evaluation, such as `val/loss`.
            run: the run's directory, which holds `checkpoints/<step>/weights.safetensors` by now.

        Returns:
            False to stop here: a finished run of fewer steps.
        """
        return None

    def examples(self, outputs: Any, batch: Batch) -> list[Example]:
        """Examples to show of some evaluated rows; by default truth and prediction, for known kinds of metrics."""
        metrics = self.metrics()
        if isinstance(metrics, Classification):
            return class_examples(outputs, batch["targets"], metrics.classes)
        if isinstance(metrics, Regression | Distance):
            truths = batch["targets"].reshape(outputs.shape)
            return number_examples(self.predictions(outputs, batch), self.predictions(truths, batch))
        return []

    def pictures(self, batch: Batch) -> Tensor | None:
        """Rows as they were fetched, as pictures: uint8 of shape (batch, 1 or 3, height, width); None if they are none.

        By default `inputs`, if they have that form.
        """
        inputs = batch.get("inputs")
        shown = inputs is not None and inputs.dtype == torch.uint8 and inputs.dim() == 4 and inputs.shape[1] in (1, 3)
        return inputs if shown else None

    def metrics(self) -> Metrics:
        """The metrics of the evaluation; the mean loss is always reported."""
        return Loss()

    def row_metrics(self, outputs: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Further metrics as means over the rows: named tensors with a number for each row; by default none."""
        return {}

    def evaluated_metrics(self) -> MetricSet:
        """All metrics of an evaluation.

        Raises:
            UserError: if `extra_metrics` names one that is not for the recipe's outputs.
        """
        deciding = (self.best.name or "").partition("/")[0]
        names = dict.fromkeys([*self.extra_metrics, *([deciding] if is_extra(deciding) else [])])
        return MetricSet.of(self.metrics(), [*names], self.row_metrics)

    @property
    def max_bad_fraction(self) -> float:
        """Share of the training rows that may turn out to be invalid while training before that is an error."""
        return 0.0

    @property
    def loader_workers(self) -> Literal["auto"] | int:
        """Processes that fetch rows for a run in this process; 0 is this one. On Ray, the cluster's CPUs fetch them."""
        return 0

    @property
    def cpu_threads(self) -> int | None:
        """Threads of torch for a run in this process, unless OMP_NUM_THREADS is set; None keeps torch's default."""
        # A function of the settings alone: another number of threads sums in another order.
        return None

    def plan(self, train_rows: int, eval_rows: int) -> Plan:
        """The order of the data.

        Raises:
            UserError: if there are no training rows, or the learning rate would be 0 before the end.
        """
        require(train_rows > 0, f"recipe {self.name} has no training rows")
        train_rows = min(train_rows, self.max_train_rows or train_rows)
        eval_rows = min(eval_rows, self.max_eval_rows or eval_rows)
        unusable = self.patience is not None and not eval_rows
        require(not unusable, f"--patience: recipe {self.name} has no rows to evaluate on; leave it out")
        steps_per_epoch = -(-train_rows // self.global_batch_size)
        total_steps = self.epochs * steps_per_epoch
        plan = Plan(
            train_rows=train_rows,
            eval_rows=eval_rows,
            global_batch_size=self.global_batch_size,
            total_steps=min(total_steps, self.max_steps or total_steps),
            evaluate_every_steps=self.evaluate_every_steps or steps_per_epoch,
            seed=self.seed,
            rows_together=self.rows_together,
        )
        if self.extra_metrics or self.best.name:
            reported = self.evaluated_metrics().reported()
            # Means over rows that a recipe's own function names are known only after an evaluation.
            if type(self).row_metrics is Recipe.row_metrics:
                self.best.require_among(reported)
        self.swa.require_within(self.epochs)
        for name, optim in self.schedules().items():
            ends = optim.schedule_steps(plan)
            require(
                ends >= plan.total_steps,
                f"--{name}.schedule-epochs {optim.schedule_epochs} ends at step {ends} of {plan.total_steps}, after "
                "which the learning rate would be 0; raise it, or lower --epochs",
            )
        return plan

    def schedules(self) -> dict[str, Optim]:
        """The optimizers among the fields whose learning rate depends on the length of the run, by their names."""
        own = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        return {name: one for name, one in own.items() if isinstance(one, Optim) and one.has_end}
