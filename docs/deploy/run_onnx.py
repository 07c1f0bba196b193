"""Run an exported model with nothing but ONNX Runtime and NumPy: python run_onnx.py ARTIFACT.onnx"""

import json
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
signature = json.loads(session.get_modelmeta().custom_metadata_map["signature.json"])

# Zeros, for want of your rows: five of them, and it could be any other number.
inputs = {name: np.zeros((5, *each["shape"][1:]), each["dtype"]) for name, each in signature["inputs"].items()}
outputs = dict(zip(signature["outputs"], session.run(list(signature["outputs"]), inputs), strict=True))
print(json.dumps({name: list(value.shape) for name, value in outputs.items()}))
if "classes" in signature:
    print(signature["classes"][int(outputs["probabilities"][0].argmax())])
