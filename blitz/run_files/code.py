"""The code of a run: `code/` keeps the user's files that its recipe consists of, and recipe.json their SHA-256.

A recipe that ships has none, nor has a run of a version that did not keep them: nothing is then compared.
"""

import ast
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from blitz.errors import UserError
from blitz.project import digests
from blitz.recipes import SOURCE_KEY
from blitz.run_files.directory import RunDirectory

_SHOWN_CHARACTERS = 60
_SHOWN_FUNCTIONS = 4


def write_sources(run: RunDirectory, sources: Mapping[str, str]) -> None:
    """Keep the source files of a run or a sweep in it, replacing those that it has."""
    if sources and run.exists("code"):
        run.delete_folder("code")
    for path, text in sources.items():
        run.write(f"code/{path}", text.encode())


def changed_code(
    run: RunDirectory, stored: Mapping[str, Any], sources: Mapping[str, str], *, in_both: bool = False
) -> str:
    """What has changed in the code of a run since it was made, in one line; empty if nothing has.

    Args:
        run: The run or sweep.
        stored: Its recipe.json or sweep.json.
        sources: The source files as they are now.
        in_both: Leave out files that only one of the two has.
    """
    before = stored.get(SOURCE_KEY)
    if not isinstance(before, dict) or not before or not sources:
        return ""
    now, said = digests(sources), []
    for path in {**before, **now}:
        if path not in now or path not in before:
            if not in_both:
                said.append(f"{path} {'is new' if path in now else 'is no longer a part of it'}")
        elif before[path] != now[path]:
            said.append(_described(path, _text(run, path), sources[path]))
    return "; ".join(said)


def _text(run: RunDirectory, path: str) -> str | None:
    try:
        return run.read(f"code/{path}").decode()
    except (OSError, UserError, UnicodeDecodeError):
        return None


def _described(path: str, before: str | None, now: str) -> str:
    """The first line of a file that has changed, and which functions have."""
    if before is None:
        return f"{path} (the run has no copy of it to compare with)"
    old, new = before.splitlines(), now.splitlines()
    spans = [one for one in SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if one[0] != "equal"]
    if not spans:
        return f"{path} (line ends only)"
    _, first, old_end, start, new_end = spans[0]
    was, is_now = _shown(old[first:old_end]), _shown(new[start:new_end])
    names = dict.fromkeys(name for span in spans for name in _functions(before, span[1], span[2]))
    names |= dict.fromkeys(name for span in spans for name in _functions(now, span[3], span[4]))
    more = f" and {len(names) - _SHOWN_FUNCTIONS} more" if len(names) > _SHOWN_FUNCTIONS else ""
    where = f" in {', '.join([*names][:_SHOWN_FUNCTIONS])}{more}" if names else ""
    return f"{path}:{start + 1}{where} (was {was}, is {is_now})"


def _shown(lines: list[str]) -> str:
    text = next((line.strip() for line in lines if line.strip()), "")
    return f"`{text if len(text) <= _SHOWN_CHARACTERS else f'{text[:_SHOWN_CHARACTERS]}…'}`" if text else "nothing"


def _functions(text: str, start: int, end: int) -> Iterator[str]:
    """Names of the innermost functions, or else classes, that have any of the lines [start, end), counted from 0."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    spans = [
        (one.name, one.lineno - 1, one.end_lineno or one.lineno) for one in ast.walk(tree) if isinstance(one, kinds)
    ]
    for line in range(start, end):
        around = [(stop - begin, name) for name, begin, stop in spans if begin <= line < stop]
        if around:
            yield min(around)[1]
