"""The same plain model and data set with the quick starts of blitz, Lightning and Accelerate.

    python -m bench.quick_start [--rounds 3]

Each program of bench/quick_starts is run as a process of its own, in turns: 1,000 steps of 64 rows on the CPU and one
evaluation. Lines are those of code, without imports, docstrings and blank ones. The first step is timed from the shell,
with all imports; steps a second are those from the 100th on. Tools that are not installed are left out.
"""

import argparse
import ast
import os
import statistics
import subprocess
import sys
import tempfile
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
    steps.append(time.time())
    return found
torch.optim.Adam.step = step
runpy.run_module(sys.argv[1], run_name="__main__")
print("steps", steps[0], steps[99], steps[-1], len(steps))
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


def timed(tool: str) -> tuple[float, float, str]:
    """Seconds to the first step, steps a second, and what the quick start prints: loss and accuracy."""
    import time

    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")])}
        started = time.time()
        command = [sys.executable, "-c", _CLOCK, f"bench.quick_starts.with_{tool}"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    *_, printed, clock = done.stdout.strip().splitlines()
    first, hundredth, last, count = map(float, clock.split()[1:])
    return first - started, (count - 100) / (last - hundredth), printed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    tools = [tool for tool in TOOLS if find_spec(tool)]
    found = {tool: [] for tool in tools}  # type: dict[str, list[tuple[float, float, str]]]
    for _ in range(rounds):
        for tool in tools:
            found[tool].append(timed(tool))
    print(f"{'':12}{'lines':>6}{'first step, s':>15}{'steps/s':>9}  loss and accuracy")
    for tool, times in found.items():
        first, rate = statistics.median(one[0] for one in times), statistics.median(one[1] for one in times)
        print(f"{tool:12}{lines_of(tool):6}{first:15.1f}{rate:9.0f}  {times[0][2]}")


if __name__ == "__main__":
    main()
