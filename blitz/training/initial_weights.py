"""Initial weights from another run, a file, or the recipe's `pretrained`, as far as they fit the model.

The process that starts a run resolves them once and writes them into the run, where every rank reads them. recipe.json
holds their hash, so that a source that has changed is noticed.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import pyarrow
import safetensors.torch
import torch
from torch import Tensor, nn

from blitz.errors import UserError, require
from blitz.models.head import head_of
from blitz.models.weights_file import SUFFIXES, read_weights
from blitz.outputs.metrics import Classification
from blitz.recipe import Recipe, WeightsSource
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import stored_recipe
from blitz.training.checkpoint import Checkpoint, Tensors
from blitz.training.sharding import take_rows

FILE = "initial.safetensors"
_SHOWN = 12

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


@dataclass(frozen=True)
class InitialWeights:
    """Which tensors of a source fit a recipe's model, and which do not."""

    source: WeightsSource
    taken: Tensors
    new: Mapping[str, str]
    """Tensors of the model that stay as they are drawn, and why."""
    left: Mapping[str, str]
    """Tensors of the source that the model does not have, and why they are not used."""
    skipped: Sequence[str] = ()
    """A line for each damaged checkpoint that was skipped for an older one."""

    def lines(self) -> Iterator[str]:
        """A summary for people."""
        yield from self.skipped
        step = "" if self.source.step is None else f", step {self.source.step}"
        whole = len(self.taken) + len(self.new)
        yield f"initialised from {self.source.source}{step}: {len(self.taken)} of {whole} tensors fit"
        yield f"  taken: {_shown(_by_part(self.taken))}"
        for reason, names in _by_reason(self.new).items():
            yield f"  new: {_shown(names)}: {reason}"
        for reason, names in _by_reason(self.left).items():
            yield f"  not used: {_shown(names)}: {reason}"

    def write(self, run: RunDirectory) -> None:
        """Write the tensors that fit into the run."""
        run.write(FILE, safetensors.torch.save(self.taken))


def resolve_initial_weights(recipe: AnyRecipe) -> tuple[AnyRecipe, InitialWeights | None]:
    """The recipe with the source of its initial weights, and these weights; None if all are drawn at random.

    The head is drawn at random unless it is known to be for the same classes.

    Raises:
        UserError: if there are no such weights, or none of them fits.
    """
    found = _source_of(recipe)
    if found is None:
        return recipe, None
    source, tensors, source_recipe, skipped = found
    # Built only for the names and shapes of its tensors.
    model = recipe.build_model()
    initial = _fit(source, tensors, model, head_is_new=_other_classes(recipe, source_recipe))
    require(
        bool(initial.taken),
        f"no weight of {source.source} fits the model of recipe {recipe.name}: it has {_shown(tensors)}, "
        f"and the model {_shown(model.state_dict())}",
    )
    return replace(recipe, begins_with=source), replace(initial, skipped=skipped)


def load_initial(recipe: Recipe, model: nn.Module, run: RunDirectory) -> None:
    """Load the run's initial weights into a newly built model.

    Raises:
        UserError: if the recipe has a source of weights that was not resolved.
    """
    if recipe.begins_with is not None:
        own = model.state_dict()
        stored = safetensors.torch.load(run.read(FILE))
        model.load_state_dict({name: take_rows(tensor, own[name]) for name, tensor in stored.items()}, strict=False)
        return
    require(not recipe.uses_other_weights, f"recipe {recipe.name}: only blitz train can initialise from other weights")


def _source_of(recipe: Recipe) -> tuple[WeightsSource, Tensors, Recipe | None, list[str]] | None:
    """The source of the weights, the weights, the recipe if it is a run, and a line for each skipped checkpoint."""
    name = recipe.init_from
    if name is None:
        pretrained = recipe.pretrained()
        if pretrained is None:
            return None
        tensors = dict(pretrained.tensors)
        return WeightsSource(None, _hash_of(tensors), pretrained.source), tensors, None, []
    if name.lower().endswith(SUFFIXES):
        tensors = read_weights(name)
        return WeightsSource(None, _hash_of(tensors), name), tensors, None, []
    try:
        run = RunDirectory.find(name)
        source = stored_recipe(run)
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        reason = "it is a file of another kind" if isinstance(error, NotADirectoryError) else str(error).splitlines()[0]
        raise UserError(
            f"--init-from: '{name}' is neither a run nor a file of weights ({', '.join(SUFFIXES)}): {reason}"
        ) from error
    skipped: list[str] = []
    step = run.checkpoint_step(recipe.init_checkpoint, report=skipped.append)
    tensors = Checkpoint.load(run, step, weights_only=True).weights
    return WeightsSource(step, _hash_of(tensors), run.uri), tensors, source, skipped


def _hash_of(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(safetensors.torch.save({name: tensor.contiguous()}))
    return digest.hexdigest()


def _other_classes(recipe: Recipe, source: Recipe | None) -> bool:
    """Whether the head of the source is, or may be, for other classes."""
    own, theirs = recipe.metrics(), source and source.metrics()
    if not isinstance(own, Classification):
        return False
    return not isinstance(theirs, Classification) or theirs.classes != own.classes


def _fit(source: WeightsSource, tensors: Tensors, model: nn.Module, *, head_is_new: bool) -> InitialWeights:
    own: Mapping[str, Tensor] = model.state_dict()
    head = head_of(model) if head_is_new else []
    taken, new = {}, {}
    for name, tensor in own.items():
        given = tensors.get(name)
        if name in head:
            new[name] = "the head, which is for other classes"
        elif given is None:
            new[name] = "the source has no such tensor"
        elif given.shape != tensor.shape:
            new[name] = f"of shape {tuple(tensor.shape)} here and {tuple(given.shape)} there"
        else:
            # A copy, because safetensors refuses tensors that share memory, as tied weights of a .pth do.
            taken[name] = given.to(tensor.dtype, copy=True, memory_format=torch.contiguous_format)
    left = {name: "the model has no such tensor" for name in tensors if name not in own}
    return InitialWeights(source, taken, new, left)


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return names


def _by_part(names: Iterable[str]) -> list[str]:
    """The modules that they belong to, each with its number of tensors."""
    counts: dict[str, int] = {}
    for name in names:
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + 1
    return [f"{part} ({count})" for part, count in counts.items()]


def _shown(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
