"""Random damage to the files of a run: it is reported, never believed, and touches no other run and no file beside."""

import random
import re
import shutil
from collections import Counter
from pathlib import Path

from bench.fuzz.commands import Commands, Done, expect
from bench.fuzz.stock import HERE, Stock, changed, digests

SECRET = "the content of a file outside the run"
DAMAGES = (
    "empty",
    "cut",
    "bit",
    "bytes",
    "appended",
    "deleted",
    "folder",
    "link",
    "dangling link",
    "swapped",
    "line",
    "json",
)
_LINES = [
    "5\n",
    "null\n",
    "[]\n",
    '"x"\n',
    "{\n",
    '{"step": "a"}\n',
    '{"step": -1}\n',
    "\0\n",
    '{"step": 1e999}\n',
    "{}\n",
]


def damage(rng: random.Random, run: Path, outside: Path) -> str:
    """Damage one file of a run; says how."""
    files = sorted(
        file for file in run.rglob("*") if file.is_file() and ("checkpoints" in file.parts or rng.random() < 0.9)
    )
    file = rng.choice(files)
    how = rng.choice(DAMAGES)
    data = bytearray(file.read_bytes())
    at = rng.randrange(len(data) or 1)
    match how:
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(data[:at])
        case "bit" | "bytes":
            for _ in range(1 if how == "bit" else 20):
                at = rng.randrange(len(data) or 1)
                data[at : at + 1] = bytes([(data[at] if data else 0) ^ (1 << rng.randrange(8))])
            file.write_bytes(data)
        case "appended":
            file.write_bytes(data + rng.randbytes(rng.choice([1, 100])))
        case "deleted":
            file.unlink()
        case "folder":
            file.unlink()
            file.mkdir()
        case "link" | "dangling link":
            file.unlink()
            file.symlink_to(outside if how == "link" else outside.with_name("nothing.txt"))
        case "swapped":
            other = rng.choice(files)
            file.write_bytes(other.read_bytes())
            how = f"swapped with {other.relative_to(run)}"
        case "line":
            lines = data.splitlines(keepends=True)
            lines.insert(rng.randrange(len(lines) + 1), bytearray(rng.choice(_LINES).encode()))
            file.write_bytes(b"".join(lines))
        case "json":
            file.write_text(rng.choice(["5", "null", "[]", "{}", '"x"', "[" * 5000, '{"a":', "NaN", "\ufeff{}"]))
    return f"{file.relative_to(run)} {how}"


def case(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    """A damaged run beside a sound one: a command's result on it is right, or reports the damage."""
    runs = folder / "runs"
    for name in ("hurt", "sound"):
        shutil.copytree(stock.table_run, runs / name)
    shutil.copy(stock.table_csv, folder / "table.csv")
    outside = folder / "outside.txt"
    outside.write_text(SECRET)
    hurt = runs / "hurt"
    if rng.random() < 0.15:
        for planted in rng.sample(
            ["report.html", "report.html.tmp", "metrics.jsonl", "pictures", "evaluations", "probe"], 2
        ):
            if (hurt / planted).is_dir():
                shutil.rmtree(hurt / planted)
            (hurt / planted).unlink(missing_ok=True)
            (hurt / planted).symlink_to(outside if "." in planted else folder)
        what = "links planted"
    else:
        what = "; ".join(damage(rng, hurt, outside) for _ in range(rng.choice([1, 1, 2])) if hurt.exists())
    sound, beside = digests(runs / "sound"), digests(folder, skip=(".lock",))
    counts: Counter[str] = Counter(damaged=1)

    listed = commands.run(folder, "runs")
    names = [line.split()[0] for line in listed.out.splitlines()[1:] if line.split()]
    expect("sound" in names, "sound run not listed", f"{what}: {listed}")
    expect("hurt" in names or "hurt" in listed.printed, "damaged run not listed", f"{what}: {listed.out!r} {listed}")
    order = rng.sample(["evaluate", "predict", "report", "train", "longer", "export"], rng.choice([2, 3]))
    # Commands that train change the results of the others.
    for name in sorted(order, key=lambda name: name == "longer"):
        done = _command(name, folder, commands)
        counts["refused" if done.code else "answered"] += 1
        _not_believed(name, done, what, folder, stock, commands)
        expect(SECRET not in done.printed, "content of a file outside shown", f"{what}: {done}")
        seen = [
            file
            for file in hurt.rglob("*")
            if file.is_file() and not file.is_symlink() and SECRET.encode() in file.read_bytes()
        ]
        expect(not seen, "content of a file outside shown", f"{what}: {seen} by {done}")
        touched = changed(sound, digests(runs / "sound"))
        expect(not touched, "another run damaged", f"{what}: {touched} by {done}")
        now = digests(folder, skip=(".lock",))
        outer = [file for file in changed(beside, now) if not file.startswith(("runs/hurt/", "cache", "out"))]
        expect(not outer, "files outside the run touched", f"{what}: {outer} by {done}")
    return counts


def _command(name: str, folder: Path, commands: Commands) -> Done:
    match name:
        case "evaluate":
            return commands.run(folder, "evaluate", "hurt", *HERE)
        case "predict":
            return commands.run(folder, "predict", "hurt", "table.csv", "out.csv", "--overwrite", *HERE)
        case "train":
            return commands.run(folder, "train", *_TRAIN, "--run", "hurt", *HERE)
        case "longer":
            return commands.run(folder, "train", *_TRAIN, "--run", "hurt", *HERE, "--epochs", "42")
        case "export":
            return commands.run(folder, "export", "hurt")
    return commands.run(folder, "report", "hurt")


_TRAIN = (
    "table_csv", "--data.train-csv", "table.csv", "--data.target", "t", "--data.val-fraction", "0.25", "--data.cache",
    "cache", "--epochs", "40", "--global-batch-size", "16", "--model.hidden", "8", "--optim.lr", "0.03",
    "--optim.schedule", "constant",
)  # fmt: skip

_ANSWERS = {"evaluate": "loss", "longer": "val/loss", "predict": ""}
"""Commands whose result comes from weights, and the name of the printed loss."""
_MESSAGE = re.compile(
    r"damaged|not believed|digest|cut|corrupt|cannot be read|not whole|is not there|instead|broken|refus|older", re.I
)


def _not_believed(name: str, done: Done, what: str, folder: Path, stock: Stock, commands: Commands) -> None:
    """The result of a command is that of the sound run, or a message explains why not."""
    if done.code != 0 or name not in _ANSWERS or _MESSAGE.search(done.printed):
        return
    key = f"right.{name}"
    right = stock.folder / key
    seen = _answer(name, done, folder)
    if not right.exists():
        right.write_text(_right(name, stock, commands))
    wanted = right.read_text()
    expect(seen == wanted, "damage believed", f"{what}: {seen[:200]!r}, not {wanted[:200]!r}: {done}")


def _right(name: str, stock: Stock, commands: Commands) -> str:
    """The result of the sound run, made with a copy of it."""
    folder = stock.folder / "sound" / name
    if not folder.exists():
        shutil.copytree(stock.table_run, folder / "runs" / "hurt")
        shutil.copy(stock.table_csv, folder / "table.csv")
    done = _command(name, folder, commands)
    return _answer(name, done, folder)


def _answer(name: str, done: Done, folder: Path) -> str:
    """The loss that a command printed, or the file that it wrote."""
    if name == "predict":
        return (folder / "out.csv").read_text()
    found = re.search(rf"^{_ANSWERS[name]}\s+(\S+)", done.out, re.M)
    return found[1] if found else ""
