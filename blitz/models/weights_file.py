"""Reading weights from a file, without running any code in it."""

import io
import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import pyarrow
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from blitz.errors import DataError, first_line
from blitz.storage import open_location

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
# Keys under which checkpoints often store the state dict.
_KEYS = ("state_dict", "model_state_dict", "model")
# The prefix that DistributedDataParallel adds to each name.
_WRAPPED = "module."


def read_weights(source: str) -> dict[str, Tensor]:
    """A state dict from a path or URI: safetensors, or what `torch.save` wrote, on the CPU.

    Raises:
        DataError: if the file is not there or not whole, holds no state dict, or could only be loaded by running code.
    """
    try:
        files, path = open_location(source)
        with files.open_input_file(path) as stream:
            data = bytes(stream.read())
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{source} cannot be read: {first_line(error)}") from error
    try:
        found: Any = safetensors.torch.load(data) if source.lower().endswith(".safetensors") else _unpickled(data)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{source} holds more than tensors and is refused: to load it would run code that it brings; give a state "
            "dict, as torch.save(model.state_dict(), FILE) writes it, or a .safetensors"
        ) from error
    except (safetensors.SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise DataError(f"{source} is not a file of weights, or is cut off: {reason}") from error
    for key in _KEYS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(one, Tensor) for one in found.values()):
        raise DataError(f"{source} holds no state dict, which is tensors by their names")
    return {str(name).removeprefix(_WRAPPED): tensor for name, tensor in found.items()}


def _unpickled(data: bytes) -> Any:
    with warnings.catch_warnings():
        # torch warns if another version of pickle wrote the file.
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
