"""Building a model without ever holding all of it: its constructor runs on the meta device, and what it would have done
to the weights is done afterwards, one tensor at a time.

The weights are those of the constructor to the bit: the same operations in the same order draw the same random numbers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_DEFERRED = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})
"""Whose tensors go to the meta device. Small ones, such as those of `torch.tensor`, keep their values."""
_aten = torch.ops.aten
_EMPTY = {_aten.empty, _aten.empty_strided, _aten.empty_like, _aten.new_empty, _aten.new_empty_strided}
_INIT = ("orthogonal_", "sparse_", "trunc_normal_")
"""Functions of `nn.init` that read values, or do nothing on the meta device: each is a step of its own."""
_OVERWRITE = {
    *(_aten.normal_, _aten.uniform_, _aten.zero_, _aten.fill_, _aten.copy_),
    *(getattr(nn.init, name) for name in _INIT),
}
_IS_META = torch.Tensor.is_meta.__get__  # type: ignore[attr-defined]


class CannotDefer(Exception):
    """The constructor needs values of tensors, or draws random numbers for tensors that are not deferred."""


@dataclass(frozen=True)
class _Step:
    call: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: Any

    def storages(self) -> set[int]:
        return {_storage_of(one) for one in tree_leaves((self.args, self.kwargs, self.outputs)) if _is_meta(one)}

    def overwrites(self, storage: int) -> bool:
        """Whether nothing of a storage's content is left, and none of it is read."""
        target, *others = tree_leaves((self.args, self.kwargs))
        if (
            getattr(self.call, "overloadpacket", self.call) not in _OVERWRITE
            or not _is_meta(target)
            or _storage_of(target) != storage
        ):
            return False
        is_whole = target.numel() * target.element_size() == target.untyped_storage().nbytes()
        return is_whole and all(not _is_meta(one) or _storage_of(one) != storage for one in others)


class Recording:
    """What was done to tensors on the meta device."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    @contextmanager
    def here(self) -> Iterator[None]:
        """Within this context new tensors are on the meta device.

        Raises:
            CannotDefer: if that is not possible.
        """
        try:
            with _init_as_steps(self._steps), _Recorder(self._steps), _OnMeta():
                yield
        except (RuntimeError, TypeError) as error:
            if "meta" not in str(error).lower():
                raise
            raise CannotDefer(str(error)) from error

    def values(self, wanted: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The values of `wanted`, which are on the meta device, on the CPU and each as soon as it is known."""
        uses: dict[int, list[int]] = defaultdict(list)
        for number, step in enumerate(self._steps):
            for storage in step.storages():
                uses[storage].append(number)
        names: dict[int, list[str]] = defaultdict(list)
        for name, tensor in wanted.items():
            names[_storage_of(tensor)].append(name)
        memory: dict[int, torch.UntypedStorage] = {}

        def real(value: Any) -> Any:
            if not _is_meta(value):
                return torch.device("cpu") if isinstance(value, torch.device) else value
            key = _storage_of(value)
            if key not in memory:
                memory[key] = torch.UntypedStorage(value.untyped_storage().nbytes())
            found = torch.empty(0, dtype=value.dtype)
            return found.set_(memory[key], value.storage_offset(), value.size(), value.stride())

        for number, step in enumerate(self._steps):
            with torch.no_grad():
                outputs = step.call(*tree_map(real, step.args), **tree_map(real, step.kwargs))
            for meta, output in zip(tree_leaves(step.outputs), tree_leaves(outputs), strict=True):
                if _is_meta(meta):
                    memory.setdefault(_storage_of(meta), output.untyped_storage())
            del outputs
            for storage in step.storages():
                later = next((self._steps[use] for use in uses[storage] if use > number), None)
                if later is None:
                    for name in names.pop(storage, ()):
                        yield name, real(wanted[name])
                if later is None or later.overwrites(storage):
                    memory.pop(storage, None)
        for left in names.values():
            yield from ((name, real(wanted[name])) for name in left)


@contextmanager
def _init_as_steps(steps: list[_Step]) -> Iterator[None]:
    def step(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def recorded(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not _is_meta(tensor):
                return call(tensor, *args, **kwargs)
            steps.append(_Step(call, (_kept(tensor), *args), kwargs, _kept(tensor)))
            return tensor

        return recorded

    before = {name: getattr(nn.init, name) for name in _INIT}
    try:
        for name, call in before.items():
            setattr(nn.init, name, step(call))
        yield
    finally:
        for name, call in before.items():
            setattr(nn.init, name, call)


class _OnMeta(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func == _IS_META and func(*args):
            raise CannotDefer("it does something else with tensors on the meta device")
        if func in _DEFERRED and given.get("device") is None:
            given["device"] = torch.device("meta")
        return func(*args, **given)


class _Recorder(TorchDispatchMode):
    def __init__(self, steps: list[_Step]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._steps = steps

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        outputs = func(*args, **given)
        inputs = [_storage_of(one) for one in tree_leaves((args, given)) if _is_meta(one)]
        made = [_storage_of(one) for one in tree_leaves(outputs) if _is_meta(one)]
        if not inputs and not made:
            if torch.Tag.nondeterministic_seeded in func.tags:
                raise CannotDefer(f"{func} draws random numbers for a tensor that is not deferred")
            return outputs
        # What is read from the memory's addresses alone, a view or an empty tensor, needs no step.
        is_view = not func._schema.is_mutable and set(made) <= set(inputs)
        if not is_view and func.overloadpacket not in _EMPTY:
            self._steps.append(_Step(func, *(tree_map(_kept, one) for one in (args, given, outputs))))
        return outputs


def _kept(value: Any) -> Any:
    """A value as it is now: a tensor's content may change, and a parameter get other memory, as by `.double()`."""
    if not isinstance(value, Tensor):
        return value
    return value.detach() if _is_meta(value) else value.detach().clone()


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "meta"


def _storage_of(tensor: Tensor) -> int:
    found: int = tensor.untyped_storage()._cdata
    return found


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, shared ones under each of their names."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
