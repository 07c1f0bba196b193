"""Two commands at once on one output, and commands that are interrupted or killed and given again."""

import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

from bench.fuzz.commands import Commands, Done, Find, Started, expect
from bench.fuzz.stock import CATEGORIES, HERE, NUMBERS, Stock, write

_LEFT = (".tmp", ".parts", ".part", ".writing")


def case(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    """One of the kinds below."""
    what = rng.choice(
        [_predict_twice, _predict_twice, _killed_beside, _train_twice, _report_twice, _prepare_twice, _stopped]
    )
    count = what(rng, folder, stock, commands)
    return Counter({what.__name__.strip("_"): 1, **count})


def _together(commands: Commands, folder: Path, rng: random.Random, *each: tuple[str, ...]) -> list[Done]:
    """Start commands with a random pause between them, and wait for all."""
    started: list[Started] = []
    for words in each:
        started.append(commands.start(folder, *words))
        time.sleep(rng.choice([0, 0, 0.02, 0.1, 0.3, 0.6]))
    return [one.end() for one in started]


def _input(folder: Path, rng: random.Random) -> list[list[str]]:
    count = rng.choice([50, 3_000, 30_000])
    rows = [[f"r{i}", repr(rng.choice(NUMBERS[:-1])), rng.choice(CATEGORIES)] for i in range(count)]
    write(folder / "in.csv", ["id", "x", "c"], rows)
    return rows


def _whole(file: Path, rows: list[list[str]], seen: str) -> None:
    """Each row once, in order, with a prediction."""
    expect(file.exists(), "output is missing", seen)
    data = file.read_bytes()
    expect(b"\0" not in data, "rows lost", f"{data.count(0)} NUL bytes; {seen}")
    lines = data.decode().splitlines()[1:]
    ids = [line.partition(",")[0] for line in lines]
    expect(ids == [row[0] for row in rows], "rows lost", f"{len(ids)} rows of {len(rows)}; {seen}")
    unpredicted = [line for line in lines if not line.split(",")[3]]
    expect(not unpredicted, "rows without a prediction", f"{unpredicted[:2]}; {seen}")


def _nothing_left(folder: Path, name: str) -> None:
    left = [each.name for each in folder.iterdir() if each.name != name and each.name.endswith(_LEFT)]
    expect(not left, "temporary files left", str(left))


def _predict_twice(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    rows = _input(folder, rng)
    overwrite = ("--overwrite",) if rng.random() < 0.6 else ()
    words = ("predict", str(stock.table_run), "in.csv", "out.csv", *HERE, *overwrite)
    many = [words] * rng.choice([2, 2, 3])
    done = _together(commands, folder, rng, *many)
    seen = "; ".join(map(str, done))
    expect(any(one.code == 0 for one in done), "all were refused", seen)
    _whole(folder / "out.csv", rows, seen)
    _nothing_left(folder, "out.csv")
    return Counter(rows=len(rows), refused=sum(one.code == 2 for one in done))


def _killed_beside(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    """One of two writers of a file is killed: the other's output is whole, or the same command completes it."""
    rows = _input(folder, rng)
    words = ("predict", str(stock.table_run), "in.csv", "out.csv", *HERE, "--overwrite")
    both = [commands.start(folder, *words)]
    time.sleep(rng.uniform(0, 0.5))
    both.append(commands.start(folder, *words))
    time.sleep(rng.uniform(0, 1))
    killed = both.pop(rng.randrange(2))
    killed.send(signal.SIGKILL)
    killed.end((0, 2, -signal.SIGKILL))
    done = both[0].end()
    if done.code == 0:
        _whole(folder / "out.csv", rows, str(done))
    done = commands.run(folder, *words)
    expect(done.code == 0, "does not continue", str(done))
    _whole(folder / "out.csv", rows, str(done))
    _nothing_left(folder, "out.csv")
    return Counter(rows=len(rows))


def _train_twice(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    words = ("train", "blobs", "--epochs", "40", "--run", "one", *HERE)
    done = _together(commands, folder, rng, words, words)
    seen = "; ".join(map(str, done))
    expect(any(one.code == 0 for one in done), "all were refused", seen)
    _same_result(folder, stock, commands, "40", seen)
    return Counter(refused=sum(one.code == 2 for one in done))


def _same_result(folder: Path, stock: Stock, commands: Commands, epochs: str, seen: str) -> None:
    """The run's result and metrics are those of an undisturbed run."""
    right = stock.folder / "alone"
    if not (right / epochs / "runs" / "one" / "result.json").exists():
        (right / epochs).mkdir(parents=True, exist_ok=True)
        commands.run(right / epochs, "train", "blobs", "--epochs", epochs, "--run", "one", *HERE)
    one, other = (storage / "runs" / "one" / "result.json" for storage in (right / epochs, folder))
    expect(other.exists(), "no result", seen)
    expect(one.read_bytes() == other.read_bytes(), "result differs", f"{other.read_text()[:300]}; {seen}")
    steps = [
        line.partition('"step":')[2].partition(",")[0]
        for line in other.with_name("metrics.jsonl").read_text().splitlines()
    ]
    train = [step for step in steps if step]
    expect(sorted(map(int, train)) == [*map(int, train)], "metrics out of order", f"{train}; {seen}")


def _report_twice(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    shutil.copytree(stock.table_run, folder / "runs" / "t")
    shutil.copy(stock.table_csv, folder / "table.csv")
    words = ("report", "t")
    done = _together(commands, folder, rng, words, words, ("evaluate", "t", *HERE), ("evaluate", "t", *HERE))
    seen = "; ".join(map(str, done))
    expect(all(one.code == 0 for one in done), "refused beside another", seen)
    page = (folder / "runs" / "t" / "report.html").read_text()
    expect(page.rstrip().endswith("</html>"), "report is cut", seen)
    _nothing_left(folder / "runs" / "t", "report.html")
    return Counter()


def _prepare_twice(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    rows = _input(folder, rng)
    words = (
        "prepare",
        "in.csv",
        "--out",
        "prepared",
        "--label-column",
        "c",
        "--bad-rows",
        "skip",
        "--max-bad-fraction",
        "1",
    )
    done = _together(commands, folder, rng, words, words, words)
    expect(
        len({one.out for one in done}) == 1 and all(one.code == 0 for one in done),
        "refused beside another",
        "; ".join(map(str, done)),
    )
    expect(f"{len(rows):,} rows" in done[0].out, "rows lost", done[0].out)
    return Counter(rows=len(rows))


def _stopped(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    """A command is stopped at a random moment, perhaps twice, and given again: it ends as an undisturbed one."""
    rows: list[list[str]] = []
    trains = rng.random() < 0.5
    words: tuple[str, ...]
    if trains:
        words = ("train", "blobs", "--epochs", "150", "--run", "one", *HERE)
    else:
        rows = _input(folder, rng)
        words = ("predict", str(stock.table_run), "in.csv", "out.csv", *HERE)
    codes = Counter[str]()
    for _ in range(rng.choice([1, 2])):
        started = commands.start(folder, *words)
        time.sleep(rng.uniform(0, 1.2))
        number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
        started.send(number)
        # A signal may come before Python or after the end.
        done = started.end((0, 2, 130, 143, -signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL))
        codes[f"code {done.code}"] += 1
        if done.code == 0:
            break
        if not trains and (folder / "out.csv").exists():
            raise Find("half of an output", str(done))
    else:
        done = commands.run(folder, *words)
        expect(done.code == 0, "does not continue", str(done))
    if trains:
        _same_result(folder, stock, commands, "150", str(done))
    else:
        _whole(folder / "out.csv", rows, str(done))
        _nothing_left(folder, "out.csv")
    return codes
