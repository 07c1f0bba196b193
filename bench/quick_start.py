"""The same plain model and data set with the quick starts of blitz, Lightning and Accelerate.

    OMP_NUM_THREADS=1 python -m bench.quick_start [--rounds 5]

Each program of bench/quick_starts is run as a process of its own, in turns: 1,000 steps of 64 rows on the CPU and one
evaluation. Lines are those of code, without imports, docstrings and blank ones. The first step is timed from the shell,
with all imports; steps a second are those from the 100th on. Both are measured by the clock and in CPU seconds of the
process, which a busy machine changes less. Ratios are to blitz in the same round, and medians over rounds. Tools that
are not installed are left out.
"""

import argparse
import ast
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_FOLDER = Path(__file__).parent / "quick_starts"
TOOLS = ("blitz", "lightning", "accelerate")
_CLOCK = """
import runpy, sys, time
import torch
steps = []
real = torch.optim.Adam.step
def step(*args, **kwargs):
    found = real(*args, **kwargs)
    steps.append((time.time(), time.process_time()))
    return found
torch.optim.Adam.step = step
runpy.run_module(sys.argv[1], run_name="__main__")
print("steps", *steps[0], *steps[99], *steps[-1], len(steps))
"""


def lines_of(tool: str) -> int:
    """Lines of code of a quick start, without imports, docstrings and blank lines."""
    text = (_FOLDER / f"with_{tool}.py").read_text()
    lines = {number for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.Expr) and is_text):
            lines -= {*range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return len(lines)


@dataclass(frozen=True)
class Timed:
    """One quick start: seconds to the first step and seconds a step, by the clock and of the CPU."""

    first: float
    first_cpu: float
    step: float
    step_cpu: float
    printed: str
    """Loss and accuracy."""


def timed(tool: str) -> Timed:
    """Run a quick start."""
    import time

    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")])}
        started = time.time()
        command = [sys.executable, "-c", _CLOCK, f"bench.quick_starts.with_{tool}"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    *_, printed, clock = done.stdout.strip().splitlines()
    first, first_cpu, hundredth, hundredth_cpu, last, last_cpu, count = map(float, clock.split()[1:])
    steps = count - 100
    return Timed(first - started, first_cpu, (last - hundredth) / steps, (last_cpu - hundredth_cpu) / steps, printed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    tools = [tool for tool in TOOLS if find_spec(tool)]
    found: dict[str, list[Timed]] = {tool: [] for tool in tools}
    for _ in range(rounds):
        for tool in tools:
            found[tool].append(timed(tool))
    ratios = "first step and a step of blitz's: clock, CPU"
    print(f"{'':12}{'lines':>6}{'first step, s':>15}{'CPU s':>7}{'steps/s':>9}{'CPU':>7}  {ratios}; loss and accuracy")
    for tool, times in found.items():

        def median(name: str, times: list[Timed] = times) -> float:
            return float(statistics.median(getattr(one, name) for one in times))

        def ratio(name: str, times: list[Timed] = times) -> str:
            pairs = zip(times, found[tools[0]], strict=True)
            return f"{statistics.median(getattr(one, name) / getattr(ours, name) for one, ours in pairs):.2f}"

        said = f"{ratio('first')} {ratio('first_cpu')}, {ratio('step')} {ratio('step_cpu')}; {times[0].printed}"
        seconds = (
            f"{median('first'):15.1f}{median('first_cpu'):7.1f}{1 / median('step'):9.0f}{1 / median('step_cpu'):7.0f}"
        )
        print(f"{tool:12}{lines_of(tool):6}{seconds}  {said}")


if __name__ == "__main__":
    main()
