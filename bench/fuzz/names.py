"""Random names of runs and storages: two names are two directories, or are refused; nothing else is touched."""

import random
from collections import Counter
from pathlib import Path

from bench.fuzz.commands import Commands, Done, expect
from bench.fuzz.stock import HERE, Stock, changed, digests

_ALPHABET = [*"ab?#%&+=;:@!$'\"()[]{}<>|~*^,. \\/\n\té"]
_WHOLE = ["a", "a?b", "a#b", "a#c", "a%20b", "a b", "a%2Fb", " a", "a ", "~", "..", ".", "-a", "a.tmp", "CON",
          "a" * 300, "é", "e\u0301", "a\u200bb", "%", "a%", "%41", "A", "a?", "a#",
          "s3://x", "file:///x", "*", "a\nb", "runs"]  # fmt: skip


def random_name(rng: random.Random) -> str:
    """A name of special characters, or one that is known for trouble."""
    if rng.random() < 0.5:
        return rng.choice(_WHOLE)
    return "".join(rng.choice(_ALPHABET) for _ in range(rng.randrange(1, 6)))


def case(rng: random.Random, folder: Path, stock: Stock, commands: Commands) -> Counter[str]:
    """Two runs of like names in one storage: each has its own directory, and lists, evaluates and reports as itself."""
    (folder / "beside").mkdir()
    (folder / "beside" / "kept.txt").write_text("kept")
    first = random_name(rng)
    second = random_name(rng) if rng.random() < 0.5 else _alike(rng, first)
    kind = rng.choice(["runs", "runs", "my runs", "a#b", "a?b", "a%20b", "file", "file #", "é"])
    storage = f"file://{folder}/{'uri' if kind == 'file' else 'uri#x'}" if kind.startswith("file") else kind
    counts: Counter[str] = Counter()
    steps = {}
    for number, name in enumerate(dict.fromkeys([first, second])):
        before = digests(folder)
        # Each run has its own number of steps, so that one mistaken for the other is noticed.
        words = ("train", "blobs", "--max-steps", str(2 + number), "--evaluate-every-steps", "1", "--no-report",
                 *_flag("--run", name), "--storage", storage, *HERE)  # fmt: skip
        done = commands.run(folder, *words)
        counts["refused" if done.code else "runs"] += 1
        after = digests(folder)
        new = changed(before, after)
        overwritten = [file for file in new if file in before]
        expect(not overwritten, "another run's files changed", f"{overwritten[:5]} by {done}")
        outside = [file for file in new if not file.startswith(_below(storage, folder))]
        expect(not outside, "files outside the storage", f"{outside[:5]} by {done}")
        if done.code == 0:
            steps[name] = _trained(done, number + 2)
            expect(bool(new), "run has no files of its own", str(done))
    if steps:
        listed = commands.run(folder, "runs", "--storage", storage)
        found = max(0, len(listed.out.strip().splitlines()) - 1)
        expect(found == len(steps), "runs not listed", f"{[*steps]!r} in {storage!r}: {listed.out!r} {listed}")
    for name, (directory, number) in steps.items():
        done = commands.run(folder, "evaluate", directory, "--checkpoint", "last", *HERE)
        expect(
            done.code == 0 and f"step {number}," in done.out,
            "run not found again",
            f"{name!r} in {storage!r}: {done.out[:80]!r} {done}",
        )
    expect((folder / "beside" / "kept.txt").read_text() == "kept", "files outside the storage", "kept.txt")
    return counts


def _flag(flag: str, value: str) -> tuple[str, ...]:
    """A flag and its value, joined by = if the value looks like a flag."""
    return (f"{flag}={value}",) if value.startswith("-") else (flag, value)


def _alike(rng: random.Random, name: str) -> str:
    at = rng.randrange(len(name) + 1)
    return rng.choice(
        [name + " ", name.upper(), name + "?x", name + "#x", name[:at] + "%20" + name[at:], name + "/", f"{name}/."]
    )


def _below(storage: str, folder: Path) -> str:
    """The storage's folder, relative to the case's."""
    path = storage.removeprefix("file://").removeprefix(f"{folder}/")
    return f"{path}/"


def _trained(done: Done, steps: int) -> tuple[str, int]:
    """The printed directory, whose number of steps must be that of this run."""
    directory = done.out.partition("run: ")[2].partition("\n")[0]
    if f"\n{steps} steps" not in done.out:
        # A line break in a name would part the line above.
        expect(False, "another run's result", f"{done.out[-200:]!r} {done}")
    return directory, steps
