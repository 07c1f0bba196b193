"""Weights that a run begins with: those of another run, of a file, or such as a recipe brings, as far as they fit.

Whoever starts a run looks them up once and keeps them in it, where every rank reads them. They are part of what is
learned: recipe.json holds their hash, so that a source that has changed is noticed.
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
from blitz.recipe import Beginning, Recipe
from blitz.run_files.directory import RunDirectory
from blitz.run_files.open import stored_recipe
from blitz.training.checkpoint import Checkpoint, Tensors

FILE = "initial.safetensors"
_SHOWN = 12

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


@dataclass(frozen=True)
class InitialWeights:
    """What of a source fits a recipe's model, and what does not."""

    begins_with: Beginning
    taken: Tensors
    new: Mapping[str, str]
    """Tensors of the model that stay as they are drawn, and why."""
    left: Mapping[str, str]
    """Tensors of the source that have no place in the model, and why."""
    passed_over: Sequence[str] = ()
    """A line for each damaged checkpoint in the place of which an older one was taken."""

    def lines(self) -> Iterator[str]:
        """What people want to know of it."""
        yield from self.passed_over
        step = "" if self.begins_with.step is None else f", step {self.begins_with.step}"
        whole = len(self.taken) + len(self.new)
        yield f"begins with {self.begins_with.source}{step}: {len(self.taken)} of {whole} tensors fit"
        yield f"  taken: {_shown(_by_part(self.taken))}"
        for reason, names in _by_reason(self.new).items():
            yield f"  new: {_shown(names)}: {reason}"
        for reason, names in _by_reason(self.left).items():
            yield f"  not used: {_shown(names)}: {reason}"

    def write(self, run: RunDirectory) -> None:
        """Keep what was taken in the run."""
        run.write(FILE, safetensors.torch.save(self.taken))


def resolve_initial_weights(recipe: AnyRecipe) -> tuple[AnyRecipe, InitialWeights | None]:
    """The recipe with a note of the weights that it begins with, and these; None where they are all drawn anew.

    The head is new unless it is known to tell the same classes apart.

    Raises:
        UserError: if there are no such weights, or none of them fits.
    """
    found = _source_of(recipe)
    if found is None:
        return recipe, None
    begins_with, tensors, source, passed_over = found
    # Its weights as they are drawn are of no interest, and no rank sees them.
    model = recipe.build_model()
    initial = _fit(begins_with, tensors, model, head_is_new=_other_classes(recipe, source))
    require(
        bool(initial.taken),
        f"no weight of {begins_with.source} fits the model of recipe {recipe.name}: it has {_shown(tensors)}, "
        f"and the model {_shown(model.state_dict())}",
    )
    return replace(recipe, begins_with=begins_with), replace(initial, passed_over=passed_over)


def load_initial(recipe: Recipe, model: nn.Module, run: RunDirectory) -> None:
    """Give a model, as it was drawn, the weights that the run begins with.

    Raises:
        UserError: if whoever has started the run did not look them up.
    """
    if recipe.begins_with is not None:
        model.load_state_dict(safetensors.torch.load(run.read(FILE)), strict=False)
        return
    require(not recipe.begins_elsewhere, f"recipe {recipe.name}: only jobs.train begins with the weights of another")


def _source_of(recipe: Recipe) -> tuple[Beginning, Tensors, Recipe | None, list[str]] | None:
    """The weights to begin with, and if they are of a run its recipe, and what to say of its damaged checkpoints."""
    place = recipe.init_from
    if place is None:
        pretrained = recipe.pretrained()
        if pretrained is None:
            return None
        tensors = dict(pretrained.tensors)
        return Beginning(None, _hash_of(tensors), pretrained.source), tensors, None, []
    if place.lower().endswith(SUFFIXES):
        tensors = read_weights(place)
        return Beginning(None, _hash_of(tensors), place), tensors, None, []
    try:
        run = RunDirectory.find(place)
        source = stored_recipe(run)
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        reason = "it is a file of another kind" if isinstance(error, NotADirectoryError) else str(error).splitlines()[0]
        raise UserError(
            f"--init-from: '{place}' is neither a run nor a file of weights ({', '.join(SUFFIXES)}): {reason}"
        ) from error
    passed_over: list[str] = []
    step = run.checkpoint_step(recipe.init_checkpoint, tell=passed_over.append)
    tensors = Checkpoint.load(run, step).weights
    return Beginning(step, _hash_of(tensors), run.uri), tensors, source, passed_over


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


def _fit(begins_with: Beginning, tensors: Tensors, model: nn.Module, *, head_is_new: bool) -> InitialWeights:
    own: Mapping[str, Tensor] = model.state_dict()
    head = head_of(model) if head_is_new else []
    taken, new = {}, {}
    for name, tensor in own.items():
        given = tensors.get(name)
        if name in head:
            new[name] = "the head, which is for other classes"
        elif given is None:
            new[name] = "it is not there"
        elif given.shape != tensor.shape:
            new[name] = f"of shape {tuple(tensor.shape)} here and {tuple(given.shape)} there"
        else:
            # A copy: safetensors takes no two that share memory, as tied weights of a .pth do.
            taken[name] = given.to(tensor.dtype, copy=True, memory_format=torch.contiguous_format)
    left = {name: "it has no place here" for name in tensors if name not in own}
    return InitialWeights(begins_with, taken, new, left)


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return names


def _by_part(names: Iterable[str]) -> list[str]:
    """The parts that they belong to, with how many there are in each."""
    counts: dict[str, int] = {}
    for name in names:
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + 1
    return [f"{part} ({count})" for part, count in counts.items()]


def _shown(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
