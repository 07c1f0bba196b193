"""Translate lines with an exported model, torch and tokenizers: echo 'A man.' | python run_translate.py ARTIFACT.pt2"""

import json
import sys

import torch
from tokenizers import Tokenizer

extra_files = {"signature.json": ""}
model = torch.export.load(sys.argv[1], extra_files=extra_files).module()
signature = json.loads(extra_files["signature.json"])
tokenizer, end = Tokenizer.from_str(signature["tokenizer"]), signature["end"]
# Tokens up to the end's stand for no text.
special, width = end + 1, signature["inputs"]["source"]["shape"][1]

for line in sys.stdin:
    tokens = [number + special for number in tokenizer.encode(f" {line.strip()}").ids]
    row = [*tokens, end, *[0] * width][:width]
    with torch.no_grad():
        said = model(torch.tensor([row], dtype=torch.int32))["tokens"][0].tolist()
    said = said[: said.index(end)] if end in said else said
    print(tokenizer.decode([number - special for number in said if number >= special]).strip())
