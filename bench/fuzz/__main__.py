"""Random input and random faults for the commands, against what is known to be right.

    python -m bench.fuzz --minutes 10 --seed 1 [--kinds tables images] [--out FOLDER]
    python -m bench.fuzz --seed 1 --case tables:17

Every case is a function of the seed, its kind and its number. A find prints one line with the command that repeats it;
its files stay in the output folder. Ends with exit code 1 if there was one. Which of two writers comes first depends on
the machine, too, so that a find of `writers` may need some repetitions.
"""

import argparse
import contextlib
import importlib
import itertools
import random
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from bench.fuzz.commands import Commands, Find
from bench.fuzz.stock import Stock, make_stock

KINDS = ("tables", "images", "names", "flags", "writers", "damage")
_WHOLE_SHARE = 0.02
_A_ROUND = {"tables": 3, "flags": 2}
"""Cases of a kind in each round, where there is more than one: those that take least time have most."""
_SHOWN_OF_A_KIND = 3


def main() -> int:
    """Run cases until the time is up; how many finds there were, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__, formatter_class=_AS_IT_STANDS)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, help="end after this many rounds over the kinds")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    parser.add_argument("--case", help="one case alone: KIND:NUMBER")
    parser.add_argument("--out", type=Path, help="folder for the files of finds")
    parser.add_argument("--limit-s", type=float, default=120.0, help="a command that takes longer hangs")
    options = parser.parse_args()
    out = (options.out or Path(tempfile.mkdtemp(prefix="blitz-fuzz-"))).absolute()
    warnings.simplefilter("ignore")
    with Commands(options.limit_s) as commands:
        shutil.rmtree(out / "stock", ignore_errors=True)
        fuzzer = Fuzzer(options.seed, out, make_stock(out / "stock", commands), commands)
        if options.case:
            kind, _, number = options.case.partition(":")
            fuzzer.run(kind, int(number), keep=True)
        else:
            with contextlib.suppress(KeyboardInterrupt):
                fuzzer.run_until(time.monotonic() + 60 * options.minutes, options.rounds, options.kinds)
    fuzzer.summarise()
    return int(bool(fuzzer.finds))


_AS_IT_STANDS = argparse.RawDescriptionHelpFormatter


class Fuzzer:
    """Runs cases and counts what they find."""

    def __init__(self, seed: str, out: Path, stock: Stock, commands: Commands) -> None:
        self.seed, self.out, self.stock, self.commands = seed, out, stock, commands
        self.cases: Counter[str] = Counter()
        self.counts: dict[str, Counter[str]] = {}
        self.finds: Counter[tuple[str, str]] = Counter()
        self.began = time.monotonic()
        self._shown: Counter[str] = Counter()

    def run_until(self, until: float, rounds: int | None, kinds: list[str]) -> None:
        """Rounds over the kinds, so many or until a time of `time.monotonic`."""
        for number in itertools.count() if rounds is None else range(rounds):
            for kind in kinds:
                share = _A_ROUND.get(kind, 1)
                for case in range(number * share, (number + 1) * share):
                    if time.monotonic() > until:
                        return
                    self.run(kind, case)

    def run(self, kind: str, number: int, *, keep: bool = False) -> Find | None:
        """Run one case; returns its find, if any. `keep` leaves its files in any case."""
        rng = random.Random(f"{self.seed} {kind} {number}")
        self.commands.whole = rng.random() < _WHOLE_SHARE
        case = self.out / f"{kind}-{number}"
        shutil.rmtree(case, ignore_errors=True)
        folder = case / "work"
        folder.mkdir(parents=True)
        found = None
        counts = self.counts.setdefault(kind, Counter())
        try:
            counts.update(importlib.import_module(f"bench.fuzz.{kind}").case(rng, folder, self.stock, self.commands))
        except Find as find:
            found = find
            self._show(kind, number, find)
        self.commands.clear()
        self.cases[kind] += 1
        if not keep and (found is None or self._shown[_signature(kind, found)] > _SHOWN_OF_A_KIND):
            shutil.rmtree(case, ignore_errors=True)
        return found

    def _show(self, kind: str, number: int, find: Find) -> None:
        self.finds[kind, find.kind] += 1
        signature = _signature(kind, find)
        self._shown[signature] += 1
        if self._shown[signature] <= _SHOWN_OF_A_KIND:
            seen = " ".join(str(find).split())[:900]
            print(
                f"FIND {kind}:{number} {seen}; python -m bench.fuzz --seed {self.seed} --case {kind}:{number}",
                flush=True,
            )

    def summarise(self) -> None:
        """Print counts of cases, of checks, and of finds."""
        minutes = (time.monotonic() - self.began) / 60
        print(
            f"\nseed {self.seed}: {sum(self.cases.values()):,} cases, {self.commands.started:,} commands, "
            f"{minutes:.1f} min"
        )
        for kind, cases in self.cases.items():
            counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.get(kind, Counter()).items())
            found = sum(count for (of, _), count in self.finds.items() if of == kind)
            print(f"{kind:8} {cases:6,} cases  {found:5,} finds  ({counts})")
        for (kind, what), count in sorted(self.finds.items()):
            print(f"  {kind:8} {what}: {count}")
        if not self.finds:
            print("nothing lost or invented, no traceback, no hang")
        print(f"files: {self.out}", flush=True)


def _signature(kind: str, find: Find) -> str:
    """The part that finds of one cause share: the words, without numbers, quotes and paths."""
    words = str(find)
    if "damage:" in words:
        return f"{kind} {find.kind} {words.partition('damage:')[2][:20]} {re.sub(r'[^a-z ]', '', words[-120:])[:60]}"
    error = words.rpartition(": ")[2] if find.kind != "traceback" else words.partition("failed:")[2][:80]
    return f"{kind} {find.kind} {re.sub(r'[^A-Za-z ]+', '', error)[:60]}"


if __name__ == "__main__":
    sys.exit(main())
