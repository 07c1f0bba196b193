"""The export formats: how each is written, and how it is run without this project."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from blitz.export.deployed import Deployed
from blitz.extras import require_extra

Format = Literal["torch_export", "onnx", "torchscript", "state_dict"]
Outputs = Mapping[str, Tensor]
Runner = Callable[[Mapping[str, Tensor]], Outputs]
Writer = Callable[[Deployed, Outputs, dict[str, Any], Path], None]
_OF_TEXT = "ai.onnx.ml"
"""The domain of ONNX's operators on text."""
_UNKNOWN = 0
"""The code of a category that is missing or unknown."""
SIGNATURE = "signature.json"
"""The name of an artifact's signature: of an extra file, or in ONNX of metadata."""


def require_installed(format_: Format) -> None:
    """Refuse a format whose packages are missing.

    Raises:
        UserError: with what to install.
    """
    if format_ == "onnx":
        require_extra("export", "onnx", "onnxscript", "onnxruntime", what="--format onnx")


def _write_torch_export(deployed: Deployed, columns: Outputs, signature: dict[str, Any], path: Path) -> None:
    with _quiet():
        program = torch.export.export(deployed, tuple(columns.values()), dynamic_shapes=_dynamic(columns))
        torch.export.save(program, path, extra_files={SIGNATURE: json.dumps(signature)})


def _run_torch_export(path: Path, signature: dict[str, Any]) -> Runner:
    with _quiet():
        module = torch.export.load(path).module()
    return lambda columns: module(*columns.values())


def _write_torchscript(deployed: Deployed, columns: Outputs, signature: dict[str, Any], path: Path) -> None:
    with _quiet():
        # Not strict, because the outputs are a dictionary.
        traced = torch.jit.trace(deployed, tuple(columns.values()), strict=False, check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={SIGNATURE: json.dumps(signature)})


def _run_torchscript(path: Path, signature: dict[str, Any]) -> Runner:
    with _quiet():
        module = torch.jit.load(str(path))
    return lambda columns: module(*columns.values())


def _write_onnx(deployed: Deployed, columns: Outputs, signature: dict[str, Any], path: Path) -> None:
    with _quiet():
        program = torch.onnx.export(
            deployed,
            tuple(columns.values()),
            dynamo=True,
            dynamic_shapes=_dynamic(columns),
            input_names=list(columns),
            output_names=list(signature["outputs"]),
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props[SIGNATURE] = json.dumps(signature)
        # One file, however large the weights.
        program.save(path, external_data=False)
    if _takes_text(signature):
        _encode_text(path, list(signature["categories"].values()))


def described_for(format_: Format, signature: dict[str, Any]) -> dict[str, Any]:
    """The signature of an artifact: ONNX takes categories as text, unless some share codes by a hash."""
    inputs, are_hashed = signature["inputs"], signature.get("hashed_categories", True)
    if format_ != "onnx" or are_hashed or "categories" not in inputs or not signature["categories"]:
        return signature
    return {**signature, "inputs": {**inputs, "categories": {**inputs["categories"], "dtype": "string"}}}


def _takes_text(signature: dict[str, Any]) -> bool:
    return bool(signature["inputs"].get("categories", {}).get("dtype") == "string")


def _encode_text(path: Path, codes: Sequence[Mapping[str, int]]) -> None:
    """Let an ONNX file take the text of `categories`, (batch, columns), instead of the codes of each column."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(path)
    graph, parts = model.graph, [f"categories/{column}" for column in range(len(codes))]
    text, inner = "categories", "categories/codes"
    for node in graph.node:
        node.input[:] = [inner if name == text else name for name in node.input]
    (given,) = (each for each in graph.input if each.name == text)
    given.type.tensor_type.elem_type = TensorProto.STRING
    nodes: list[Any] = []
    for column, (part, of_value) in enumerate(zip(parts, codes, strict=True)):
        index = helper.make_tensor(f"{part}/index", TensorProto.INT64, [1], [column])
        graph.initializer.append(index)
        nodes += [
            helper.make_node("Gather", [text, index.name], [f"{part}/text"], axis=1),
            helper.make_node(
                "LabelEncoder",
                [f"{part}/text"],
                [part],
                domain=_OF_TEXT,
                keys_strings=list(of_value),
                values_int64s=list(of_value.values()),
                default_int64=_UNKNOWN,
            ),
        ]
    nodes.append(helper.make_node("Concat", parts, [inner], axis=1))
    for node in reversed(nodes):
        graph.node.insert(0, node)
    if all(one.domain != _OF_TEXT for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_OF_TEXT, 3))
    onnx.save(model, path)


def _as_text(signature: dict[str, Any], codes: Tensor) -> npt.NDArray[Any]:
    """The text of categories that have these codes, (batch, columns); the unknown ones' is empty."""
    columns = zip(signature["categories"].values(), codes.T.tolist(), strict=True)
    values = ([{code: value for value, code in of_value.items()}, found] for of_value, found in columns)
    return np.array([[value_of.get(code, "") for code in found] for value_of, found in values], object).T


def _run_onnx(path: Path, signature: dict[str, Any]) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {each.name for each in session.get_inputs()}

    def run(columns: Mapping[str, Tensor]) -> Outputs:
        arrays: dict[str, Any] = {name: column.numpy() for name, column in columns.items() if name in taken}
        if _takes_text(signature):
            arrays["categories"] = _as_text(signature, columns["categories"])
        found = session.run(list(signature["outputs"]), arrays)
        return {name: torch.from_numpy(each) for name, each in zip(signature["outputs"], found, strict=True)}

    return run


SUFFIXES: dict[Format, str] = {
    "torch_export": "pt2",
    "onnx": "onnx",
    "torchscript": "torchscript.pt",
    "state_dict": "pt",
}
WRITERS: dict[Format, tuple[Writer, Callable[[Path, dict[str, Any]], Runner]]] = {
    "torch_export": (_write_torch_export, _run_torch_export),
    "onnx": (_write_onnx, _run_onnx),
    "torchscript": (_write_torchscript, _run_torchscript),
}
"""The writer and the runner of each format; a state dict cannot be run."""


def quantize_onnx(path: Path) -> None:
    """Make the weights of an ONNX file 8-bit integers, in place: dynamic quantisation, by ONNX Runtime."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared")
    encodes = any(one.domain == _OF_TEXT for one in onnx.load(path).opset_import)
    with _quiet():
        # ONNX Runtime's own inference of shapes does not know the encoders of text.
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=encodes)
        # Unsigned, because ONNX Runtime's convolutions on CPUs take no others.
        quantize_dynamic(str(prepared), str(path), weight_type=QuantType.QUInt8)
    prepared.unlink()


def _dynamic(columns: Outputs) -> Any:
    batch = torch.export.Dim("batch")
    return {"columns": tuple({0: batch} for _ in columns)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters: deprecations of their internals, progress, advice."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
