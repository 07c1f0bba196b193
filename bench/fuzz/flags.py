"""Random flags with random values: every command answers with 0, or refuses in one line with 2."""

import random
import re
import shutil
from collections import Counter
from pathlib import Path

from bench.fuzz.commands import Commands, expect
from bench.fuzz.stock import HERE, Stock, read

_FLAG = re.compile(r"^│?\s*(--[a-z][\w.-]*)(?:, (--[a-z][\w.-]*))?(?: (\{[^}]*\}\|?\S*|[A-Z]\S*))?", re.M)
_LEFT_OUT = ("--scale", "--max-failures", "--compile", "--png", "--help", "--no-report")
"""Flags that say where a command runs, and those that take minutes by design."""

_TEXTS = ["", " ", "x", "0", "-1", "é", "a b", "nosuch", ".", "..", "in.csv", "in.csv/x", "folder", "/dev/null",
          "s3:/x", "http://localhost:9/x", "file:", "None",
          "\n", "a\nb", "%s", "{}", "x" * 300, "\t", ",", '"', "c", "x", "t"]  # fmt: skip
_NUMBERS = ["0", "1", "2", "3", "-1", "1.5", "nan", "inf", "-inf", "1e-300", "1e300", "1e999", "x", "", "0x10", "1_000",
            "٣", "0.1", "0.5", "-0.0", "9007199254740993", "1e5", " 1", "True"]  # fmt: skip
_SMALL = ["0", "1", "2", "3", "-1", "x", "", "1.5", "7"]
"""Values for flags that decide how long a run takes."""

_COMMANDS = (
    "train blobs",
    "train table_csv",
    "train parabola",
    "prepare",
    "predict",
    "evaluate",
    "export",
    "report",
    "runs",
)


def _words(command: str, stock: Stock) -> tuple[str, ...]:
    match command:
        case "train table_csv":
            data = ("--data.train-csv", "in.csv", "--data.target", "t", "--data.val-fraction", "0.3", "--epochs", "1")
            return ("train", "table_csv", *data, "--data.cache", "cache", *HERE)
        case "train blobs" | "train parabola":
            return (*command.split(), "--max-steps", "3", *HERE)
        case "prepare":
            return ("prepare", "in.csv")
        case "predict":
            return ("predict", "run", "in.csv", "out.csv", *HERE)
        case "evaluate":
            return ("evaluate", "run", *HERE)
        case "runs":
            return ("runs",)
    return (command, "run")


_KNOWN: dict[str, list[tuple[str, str]]] = {}


def known_flags(command: str, folder: Path, stock: Stock, commands: Commands) -> list[tuple[str, str]]:
    """The flags in a command's help, and its description of their values."""
    if command not in _KNOWN:
        words = _words(command, stock)
        own = words[
            : {"train": 2, "prepare": 2, "predict": 4, "evaluate": 2, "export": 2, "report": 1}.get(words[0], 1)
        ]
        text = commands.run(folder, *own, "--help").out
        found = [(flag, kind or "") for one, other, kind in _FLAG.findall(text) for flag in (one, other) if flag]
        _KNOWN[command] = [pair for pair in found if not pair[0].startswith(_LEFT_OUT)]
    return _KNOWN[command]


def random_value(rng: random.Random, flag: str, kind: str) -> list[str]:
    """Words after a flag: mostly of its kind, at times not."""
    if flag.endswith(("epochs", "steps", "rows", "hidden", "workers", "keep", "size")):
        return [rng.choice(_SMALL)]
    choices = re.findall(r"[\w-]+", kind.partition("}")[0]) if kind.startswith("{") else []
    if choices and rng.random() < 0.7:
        return [rng.choice(choices)]
    if ("INT" in kind or "FLOAT" in kind) and rng.random() < 0.6:
        return [rng.choice(["1", "2", "3", "8", "32"] if "INT" in kind else ["0.001", "0.1", "0.5", "0", "1", "2.5"])]
    if "INT" in kind or "FLOAT" in kind:
        return [rng.choice(_NUMBERS) for _ in range(rng.choice([1, 1, 1, 2]))]
    if not kind and rng.random() < 0.7:
        return []
    return [rng.choice(_TEXTS) for _ in range(rng.choice([1, 1, 1, 0, 2, 3]))]


def case(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    """One command with some random flags."""
    shutil.copytree(stock.table_run, folder / "runs" / "run")
    shutil.copy(stock.table_csv, folder / "in.csv")
    shutil.copy(stock.table_csv, folder / "table.csv")
    (folder / "folder").mkdir()
    command = rng.choice(_COMMANDS)
    whole, commands.whole = commands.whole, False
    flags = known_flags(command, folder, stock, commands)
    commands.whole = whole
    words = [*_words(command, stock)]
    for flag, kind in rng.sample(flags, min(len(flags), rng.choice([1, 1, 2, 3]))):
        values = random_value(rng, flag, kind)
        joined = values and rng.random() < 0.5
        words += [f"{flag}={values[0]}", *values[1:]] if joined else [flag, *values]
    if rng.random() < 0.1:
        words.insert(rng.randrange(1, len(words) + 1), rng.choice(_TEXTS))
    done = commands.run(folder, *words)
    if command not in ("report", "export"):
        # These two may be given an output there.
        expect((folder / "in.csv").read_bytes() == stock.table_csv.read_bytes(), "input changed", str(done))
    if command == "predict" and done.code == 0 and (folder / "out.csv").exists():
        found = len(read(folder / "out.csv"))
        expect(found == len(read(stock.table_csv)), "rows lost", f"{found} rows: {done}")
    return Counter({command: 1, "refused": done.code == 2})
