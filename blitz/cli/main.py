"""`blitz COMMAND …`: finds the command, and leaves with its exit code.

Nothing slow is imported before the command is known, so that `blitz --help` answers at once.
"""

import sys
from difflib import get_close_matches
from importlib import import_module, metadata
from typing import NoReturn

COMMANDS = {
    "init": "make a project of your own, with a recipe that trains as it is",
    "train": "train a recipe, or continue a run",
    "tune": "try many settings of a recipe, and find the best",
    "evaluate": "evaluate a checkpoint of a run",
    "predict": "predict for every row of a CSV or line of a text",
    "prepare": "check a CSV before training on it",
    "export": "export a checkpoint as one file that runs without blitz",
    "report": "write a page about a run, several runs or a sweep",
    "runs": "list the runs in a storage",
    "doctor": "check what keeps a run from starting",
}
_RESUMABLE = ("train", "tune", "predict")


def main() -> NoReturn:
    """The `blitz` command."""
    words = sys.argv[1:]
    if words[:1] == ["--version"]:
        print(f"blitz {metadata.version('blitz')}")
        sys.exit(0)
    if not words or words[0] in ("-h", "--help"):
        print("usage: blitz COMMAND [flags]; blitz COMMAND --help names its flags\n")
        print("\n".join(f"  {name:10} {does}" for name, does in COMMANDS.items()))
        sys.exit(0)
    name = words[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"; perhaps {near[0]}" if near else ""
        print(f"error: there is no command {name!r}{hint}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    run_command(name, words[1:])


def run_command(name: str, words: list[str] | None = None) -> NoReturn:
    """Run a command on `words`, by default those of the command line, and leave with its exit code."""
    try:
        module = import_module(f"blitz.cli.{name}")
        from blitz.cli.command_line import run
    except KeyboardInterrupt:
        # Imports take seconds.
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    try:
        run(module.main, sys.argv[1:] if words is None else words, resumable=name in _RESUMABLE)
    except SystemExit as leaving:
        if hasattr(module, "exit_at_once"):
            module.exit_at_once(int(leaving.code or 0))
        raise
