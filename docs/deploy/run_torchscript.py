"""Run a model in the format that torch deprecates with nothing but torch: python run_torchscript.py ARTIFACT"""

import json
import sys

import torch

extra_files = {"signature.json": ""}
model = torch.jit.load(sys.argv[1], _extra_files=extra_files)
signature = json.loads(extra_files["signature.json"])

# Zeros, for want of your rows: five of them, and it could be any other number.
inputs = [
    torch.zeros(5, *each["shape"][1:], dtype=getattr(torch, each["dtype"])) for each in signature["inputs"].values()
]
with torch.no_grad():
    outputs = model(*inputs)
print(json.dumps({name: list(value.shape) for name, value in outputs.items()}))
if "classes" in signature:
    print(signature["classes"][int(outputs["probabilities"][0].argmax())])
