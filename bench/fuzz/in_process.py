"""Runs commands in this process, one after the other: for tests, and for cases of which none starts two at once."""

import contextlib
import importlib
import io
import os
import sys
import traceback
from pathlib import Path

from bench.fuzz.commands import ANSWERS, Commands, Done, Find, expect


class InProcess(Commands):
    """Commands that are called rather than started; what hangs hangs the caller."""

    def run(self, folder: Path, *words: str, codes: tuple[int, ...] = ANSWERS) -> Done:
        """Run a command in a folder to its end."""
        from blitz.cli.command_line import run

        main = importlib.import_module(f"blitz.cli.{words[0]}").main
        self.started += 1
        before, argv, code = Path.cwd(), sys.argv, 0
        out, err = io.StringIO(), io.StringIO()
        os.chdir(folder)
        sys.argv = [f"jobs.{words[0]}", *words[1:]]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                run(main, [*words[1:]])
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 0
        except BaseException as error:
            raise Find("traceback", f"{words}: {traceback.format_exc()}") from error
        finally:
            os.chdir(before)
            sys.argv = argv
        done = Done(words, code, out.getvalue(), err.getvalue())
        expect(code in codes, "traceback", str(done))
        expect(
            code != 2 or done.err.strip().splitlines()[-1].startswith("error:"), "refusal is not one line", str(done)
        )
        return done

    def import_what_it_does(self, folder: Path, *words: str) -> None:
        """Run a command."""
        self.run(folder, *words)
