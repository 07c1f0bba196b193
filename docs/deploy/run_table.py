"""Predict for raw rows of a table with an exported model, NumPy, and torch or ONNX Runtime.

    python run_table.py ARTIFACT ROWS.csv

In a service: `predict = load(ARTIFACT)`, and then `predict(rows)` for a list of dictionaries, from a CSV or from JSON.
A cell may be text as in the CSV that was trained on, a number, or None if it is missing.
"""

import csv
import hashlib
import json
import re
import sys
from datetime import UTC, datetime, timedelta

import numpy as np

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
START, MASK = datetime(1970, 1, 1, tzinfo=UTC), (1 << 64) - 1


def load(path):
    """A function from rows to predictions."""
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        signature = json.loads(session.get_modelmeta().custom_metadata_map["signature.json"])

        taken = {each.name for each in session.get_inputs()}

        def outputs(inputs):
            found = session.run(list(signature["outputs"]), {name: inputs[name] for name in taken})
            return dict(zip(signature["outputs"], found, strict=True))

    else:
        import torch

        files = {"signature.json": ""}
        if path.endswith(".pt2"):
            model = torch.export.load(path, extra_files=files).module()
        else:
            model = torch.jit.load(path, _extra_files=files)
        signature = json.loads(files["signature.json"])

        def outputs(inputs):
            with torch.no_grad():
                found = model(*(torch.from_numpy(inputs[name]) for name in signature["inputs"]))
            return {name: value.numpy() for name, value in found.items()}

    def predict(rows):
        found = outputs(inputs_of(signature, rows))
        if "labels" in signature:
            of_rows = [dict(zip(signature["labels"], row, strict=True)) for row in found["probabilities"].tolist()]
            return [{"prediction": [one for one in row if row[one] >= 0.5], "probabilities": row} for row in of_rows]
        if "classes" not in signature:
            return [{"prediction": value} for value in found["prediction"].tolist()]
        answers = []
        for probabilities in found["probabilities"].tolist():
            of_class = dict(zip(signature["classes"], probabilities, strict=True))
            answers.append({"prediction": max(of_class, key=of_class.get), "probabilities": of_class})
        return answers

    return predict


def inputs_of(signature, rows):
    """The arrays that the model takes, by name."""
    made = {"numbers": numbers_of, "categories": categories_of, "texts": texts_of}
    return {name: made[name](signature, rows) for name in signature["inputs"]}


def cell_of(row, column):
    if column not in row:
        raise ValueError(f"a row lacks the column '{column}'; give None if it is missing")
    return "" if row[column] is None else row[column]


def numbers_of(signature, rows):
    """float64 (rows, numbers), NaN where missing."""
    cells, dates = signature["cells"], signature["dates"]
    columns = [[number(cells, name, cell_of(row, name)) for row in rows] for name in cells["numbers"]]
    for name, date in dates.items():
        columns += zip(*(parts_of(date, cell_of(row, name)) for row in rows), strict=True)
    return np.array(columns, np.float64).reshape(len(columns), len(rows)).T


def number(cells, column, cell):
    if not isinstance(cell, str):
        return float(cell)
    how = cells["numbers"][column]
    for pattern, replacement in how["replacements"]:
        cell = re.sub(pattern, replacement, cell)
    if how["decimal"] == ",":
        cell = cell.translate(str.maketrans(".,", ",."))
    text = cell.strip()
    if text.lower() in cells["missing"]:
        return np.nan
    if how["groups"] and re.search(how["groups"][0], text):
        text = re.sub(how["groups"][1], "", text)
    if not re.search(cells["number"], text) or abs(float(text)) > cells["largest"]:
        raise ValueError(f"column '{column}' holds {cell!r}; expected a number")
    return float(text)


def categories_of(signature, rows):
    """What the model takes of categories: text, or their codes."""
    names = list(signature["categories"])
    texts = [[str(cell_of(row, name)) for name in names] for row in rows]
    if signature["inputs"]["categories"]["dtype"] == "string":
        return np.array(texts, object).reshape(len(rows), len(names))
    codes = [[code_of(signature, *one) for one in zip(names, row, strict=True)] for row in texts]
    return np.array(codes, np.int64).reshape(len(rows), len(names))


def code_of(signature, column, cell):
    codes, hashed = signature["categories"][column], signature["hashed_categories"].get(column)
    if cell in codes or hashed is None or cell.strip().lower() in hashed["missing"]:
        return codes.get(cell, signature["unknown_category"])
    digest = hashlib.blake2b(cell.encode(), digest_size=8).digest()
    return hashed["first_code"] + int.from_bytes(digest, "little") % hashed["codes"]


def parts_of(date, cell):
    """Numbers of a date, NaN if it is none."""
    found = (re.search(pattern, str(cell).lower()) for pattern in date["patterns"])
    match = next(filter(None, found), None)
    seconds = match and seconds_of(match.groupdict())
    if seconds is None:
        return [np.nan] * len(date["parts"])
    days = int(seconds // 86400)
    day = START + timedelta(days)
    numbers = {
        "year": day.year,
        "month": day.month,
        "weekday": day.weekday(),
        "hour": seconds % 86400 / 3600,
        "elapsed": seconds / 86400,
    }
    return [numbers[part] for part in date["parts"]]


def seconds_of(parts):
    """Seconds since 1970; None if a part is out of range."""
    year, day = int(parts["year"]), int(parts["day"])
    if len(parts["year"]) == 2:
        year += 1900 if year >= 69 else 2000
    month = MONTHS.index(parts["word"]) + 1 if "word" in parts else int(parts["month"])
    hour, minute, second = int(parts["hour"] or 0), int(parts["minute"] or 0), float(parts["second"] or 0)
    if parts["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (parts["half"] == "pm")
    try:
        start = datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None
    if hour > 24 or minute >= 60 or second >= 61:
        return None
    zone = parts["zone"] or ""
    digits = zone[1:].replace(":", "") if zone[:1] in ("+", "-") else "0000"
    offset = (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (-1 if zone[:1] == "-" else 1)
    return (start - START).days * 86400 + hour * 3600 + minute * 60 + second - offset


def texts_of(signature, rows):
    """Hashes of the pieces of words, int32 (rows, columns, pieces), 0 after the last."""
    how = signature["texts"]
    found = np.zeros((len(rows), len(how["columns"]), how["pieces"]), np.int32)
    for row, cells in enumerate(rows):
        for column, name in enumerate(how["columns"]):
            pieces = pieces_of(how, str(cell_of(cells, name)))
            found[row, column, : len(pieces)] = pieces
    return found


def pieces_of(how, text):
    words = " ".join(text.lower().split())
    letters = [ord(letter) for letter in f" {words} "] if words else []
    found = []
    for size in how["sizes"]:
        for start in range(min(len(letters) - size + 1, how["pieces"] // len(how["sizes"]))):
            value = size
            for letter in letters[start : start + size]:
                value = value * how["factor"] & MASK ^ letter
            found.append(mix64(value) % how["buckets"] + 1)
    return found


def mix64(value):
    """The finalizer of SplitMix64."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for answer in load(sys.argv[1])(rows):
        print(json.dumps(answer))
