"""Make a project of your own: a recipe with a model and data, a sweep space, a test, and how to run them.

    blitz init NAME [--from-csv FILE [--target COLUMN]]

Makes the folder NAME. Its recipe trains as it is, on data that it makes itself, and is there to be changed. From a
CSV it makes a recipe for its columns.
"""

import keyword
import re
import shlex
import sys
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template

from blitz.cli.command_line import parse
from blitz.errors import UserError, require

PROG = "blitz init"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TEMPLATES = resources.files("blitz.cli") / "project_template"
_TAKEN = ("space", "test", "tests", "runs")
"""Other files and folders of a project."""


@dataclass(frozen=True)
class InitSettings:
    """What `blitz init` takes beside the name."""

    from_csv: str | None = None
    """Write a recipe for this CSV, a path or a URI, from a look at its columns."""
    target: str | None = None
    """With --from-csv: the column to learn; by default the last."""


def main(words: list[str]) -> None:
    """Make the project that the command line names."""
    if not words or words[0].startswith("-"):
        require(words[:1] in ([], ["-h"], ["--help"]), f"name the project first: {PROG} NAME [flags]")
        print(f"{__doc__}\nFlags: those of `{PROG} NAME --help`.")
        return
    init(words[0], parse(InitSettings(), words[1:], prog=f"{PROG} {words[0]}", description=__doc__ or ""))


def init(name: str, settings: InitSettings) -> Path:
    """Make the project and print what it holds; its folder.

    Raises:
        UserError: if the name cannot be that of a project, the folder holds something, or the CSV cannot be read.
    """
    module = _module_name(name)
    folder = Path(name)
    require(not folder.exists() or folder.is_dir(), f"{name} is a file; name another project")
    require(not folder.exists() or not any(folder.iterdir()), f"the folder {name} is not empty; name another project")
    require(settings.target is None or settings.from_csv is not None, "--target names a column of --from-csv FILE")
    class_name = "".join(part[:1].upper() + part[1:] for part in module.split("_"))
    values = {"name": name, "module": module, "class_name": class_name}
    kind = ""
    if settings.from_csv is not None:
        # Imported here because a project without a CSV is made without pyarrow.
        from blitz.cli.csv_project import csv_values

        kind, more = "csv_", csv_values(settings.from_csv, settings.target)
        values |= more
    files = {
        f"{module}.py": f"{kind}recipe.py",
        "space.py": f"{kind}space.py",
        f"test_{module}.py": f"{kind}test_recipe.py",
        "cluster.yaml": "cluster.yaml",
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
    }
    texts = {file: _filled(template, values) for file, template in files.items()}
    try:
        folder.mkdir(exist_ok=True)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); name a project in another folder") from error
    print(f"{name}/: {', '.join(files)}")
    if "target" in values:
        guessed = "" if settings.target else ", the last column: --target names another"
        print(f"learns {values['target']}{guessed}")
    print(f"train it: cd {shlex.quote(name)} && blitz train {module}.py")
    return folder


def _module_name(name: str) -> str:
    """The Python module of a project's recipe."""
    require(
        _NAME.fullmatch(name) is not None,
        f"{name!r} is no name for a project; take letters, digits, _ and -, and a letter first",
    )
    module = name.replace("-", "_").lower()
    shipped = (resources.files("blitz") / "recipes" / f"{module}.py").is_file()
    require(not shipped, f"{module} is a recipe of blitz; name another project")
    require(module not in _TAKEN, f"{module} is the name of another part of a project; name it otherwise")
    taken = keyword.iskeyword(module) or module in sys.stdlib_module_names or _is_installed(module)
    require(not taken, f"{module} is the name of a Python module; name another project")
    return module


def _is_installed(module: str) -> bool:
    """Whether a module of that name would be imported; an empty folder is taken for one without a file."""
    found = find_spec(module)
    return found is not None and found.origin is not None


def _filled(template: str, values: dict[str, str]) -> str:
    return Template((_TEMPLATES / f"{template}.template").read_text(encoding="utf-8")).substitute(values)
