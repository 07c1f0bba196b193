"""Run an exported model with nothing but torch: python run_torch_export.py ARTIFACT.pt2"""

import json
import sys

import torch

extra_files = {"signature.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra_files)
signature, model = json.loads(extra_files["signature.json"]), program.module()

# Zeros, for want of your rows: five of them, and it could be any other number.
inputs = [
    torch.zeros(5, *each["shape"][1:], dtype=getattr(torch, each["dtype"])) for each in signature["inputs"].values()
]
with torch.no_grad():
    outputs = model(*inputs)
print(json.dumps({name: list(value.shape) for name, value in outputs.items()}))
if "classes" in signature:
    print(signature["classes"][int(outputs["probabilities"][0].argmax())])
