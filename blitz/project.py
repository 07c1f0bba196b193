"""Code of users' own projects: modules by file or by dotted name, and what of it belongs to a recipe."""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import linecache
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from blitz.errors import UserError, require

_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib", "platstdlib"))
_SITE_FOLDERS = ("site-packages", "dist-packages")
"""Where packages are installed; a virtual environment may see those of another one, which `_INSTALLED` lacks."""
_OWN = tuple(Path(__file__).resolve().parents[1] / name for name in ("blitz", "jobs", "tune_spaces"))


def is_reference(text: str) -> bool:
    """Whether `text` names a file or a module rather than something that is known by name."""
    return text.endswith(".py") or any(mark in text for mark in (":", "/", "."))


def load_module(reference: str) -> ModuleType:
    """The module of a file such as `path/flowers.py`, or of a dotted name such as `mypackage.flowers`.

    Its folder, or for a dotted name the current one, is put on `sys.path`, as `python path/flowers.py` and `python -m`
    do, so that it can import the modules beside it. A file inside a package is imported as a part of it.

    Raises:
        UserError: if it is not there or cannot be imported.
    """
    if not (reference.endswith(".py") or "/" in reference):
        return _imported(reference, Path.cwd(), what=f"module {reference}")
    file = Path(reference).expanduser().resolve()
    require(file.is_file(), f"there is no file {reference}; name a Python file or a module")
    main = sys.modules["__main__"]
    if (running := getattr(main, "__file__", None)) is not None and Path(running).resolve() == file:
        # Imported under its own name, the program would run a second time.
        return main
    root, name = file.parent, file.stem
    while (root / "__init__.py").exists():
        root, name = root.parent, f"{root.name}.{name}"
    require(
        all(part.isidentifier() for part in name.split(".")),
        f"{reference}: {name} is no name for a Python module; rename it to letters, digits and _",
    )
    module = _imported(name, root, what=reference)
    taken_by = getattr(module, "__file__", None) or "Python itself"
    require(
        Path(taken_by).resolve() == file,
        f"{reference} cannot be imported as '{name}': {taken_by} has that name; rename it",
    )
    return module


def _imported(name: str, root: Path, *, what: str) -> ModuleType:
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    # A file that was written a moment ago, as by a notebook, is not in the listings that Python keeps of folders.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except SystemExit as error:
        raise UserError(f"{what} cannot be imported{_where(error, root)}: it calls sys.exit({error.code!r})") from error
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(f"there is no module '{error.name}' in {root} or among what is installed") from error
        raise UserError(f"{what} cannot be imported{_where(error, root)}: {error}") from error
    except Exception as error:
        raise UserError(f"{what} cannot be imported{_where(error, root)}: {type(error).__name__}: {error}") from error


def _where(error: BaseException, root: Path) -> str:
    """The last line of the project that led to the error."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}:{error.lineno})"
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(f"{root}/")]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def is_project_code(module: ModuleType) -> bool:
    """Whether a module is a file of the user's project: neither installed, nor a part of Python or of blitz.

    A package without `__init__.py` has no file; its folders decide.
    """
    file = getattr(module, "__file__", None)
    try:
        found = [file] if file else list(getattr(module, "__path__", ()))
    except KeyError:
        # A namespace package looks its parent up, which may no longer be imported.
        return False
    # Most of thousands of modules are known by the text of their path alone.
    if any(f"/{name}/" in str(path) for name in _SITE_FOLDERS for path in found):
        return False
    paths = [Path(path).resolve() for path in found if Path(path).exists()]
    return bool(paths) and not any(
        path.is_relative_to(folder) or any(name in path.parts for name in _SITE_FOLDERS)
        for path in paths
        for folder in (*_INSTALLED, *_OWN)
    )


def project_modules() -> list[ModuleType]:
    """The modules of the user's project that are imported, except the program itself."""
    found = [module for name, module in list(sys.modules.items()) if name != "__main__"]
    return [module for module in found if isinstance(module, ModuleType) and is_project_code(module)]


@dataclass(frozen=True)
class Code:
    """The code of the user's project that something consists of."""

    reference: str
    """What names it, as `reference_to` gives it."""
    sources: Mapping[str, str]
    """The text of each file by its path; empty for what is installed."""


def sources_of(*owners: Any) -> dict[str, str]:
    """The source text that classes and functions of the user's project consist of, by path: their files, and the
    project's files that these import, however indirectly. Paths are relative to the folder that has all of them.

    Of the program itself, a script or a notebook, only the text of the class or function counts, with the project's
    modules that the program has imported: a script also holds the call that starts the run, with settings that may
    change. What is installed has no sources here.
    """
    files: dict[Path, None] = {}
    texts: dict[str, str] = {}
    for owner in owners:
        module = sys.modules.get(owner.__module__)
        if module is None or owner.__module__ == "__main__" or getattr(module, "__file__", None) is None:
            texts[f"{owner.__qualname__.replace('<locals>.', '')}.py"] = _own_text(owner)
            for imported in _modules_in(module):
                _add_sources(imported, files)
        elif is_project_code(module):
            _add_sources(module, files)
    root = Path(os.path.commonpath([file.parent for file in files])) if files else Path()
    found = {file.relative_to(root).as_posix(): _text_of(file) for file in sorted(files)}
    return {path: text for path, text in {**found, **texts}.items() if text}


def source_files(owners: Sequence[Path], paths: Iterable[str]) -> dict[str, str]:
    """The text of the files that `sources_of` named by `paths`, as they are now and without importing them.

    Their common folder is found by one of `owners`, which is among them; files that are not there are left out.
    """
    parts = {path: PurePosixPath(path).parts for path in paths if ".." not in PurePosixPath(path).parts}
    for owner in (one.resolve() for one in owners if one.is_file()):
        same = [len(each) for each in parts.values() if owner.parts[-len(each) :] == each]
        if same:
            root = owner.parents[max(same) - 1]
            files = {path: root.joinpath(*each) for path, each in parts.items()}
            return {path: _text_of(file) for path, file in files.items() if file.is_file()}
    return {}


def _modules_in(program: ModuleType | None) -> Iterator[ModuleType]:
    """The project's modules that a program has imported, or has imported something of."""
    for value in list(vars(program).values()) if program else ():
        name = getattr(value, "__module__", None)
        module = value if isinstance(value, ModuleType) else sys.modules.get(name) if isinstance(name, str) else None
        if module is None or module is program or getattr(module, "__file__", None) is None:
            continue
        if is_project_code(module):
            yield module


def _text_of(file: Path) -> str:
    try:
        # Its first lines may name another encoding than UTF-8.
        return importlib.util.decode_source(file.read_bytes())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""


def _own_text(owner: Any) -> str:
    """The text of one class or function; empty where it is not known."""
    try:
        return inspect.getsource(owner)
    except (OSError, TypeError):
        pass
    # Of a class in a notebook, Python knows no file; but its methods know their cell.
    for member in vars(owner).values() if isinstance(owner, type) else ():
        code = getattr(member, "__code__", None)
        text = "".join(linecache.getlines(code.co_filename)) if code else ""
        for node in _nodes(text):
            if isinstance(node, ast.ClassDef) and node.name == owner.__name__:
                return ast.get_source_segment(text, node) or ""
    return ""


def _nodes(text: str) -> Iterator[ast.AST]:
    try:
        yield from ast.walk(ast.parse(text))
    except SyntaxError:
        # It was edited after it was imported, or is a cell of a notebook's own language.
        return


def _add_sources(module: ModuleType, files: dict[Path, None]) -> None:
    file = Path(str(module.__file__)).resolve()
    if file in files:
        return
    files[file] = None
    for name in _imports(file, module.__package__ or ""):
        imported = sys.modules.get(name)
        if imported is not None and is_project_code(imported):
            _add_sources(imported, files)


def _imports(file: Path, package: str) -> Iterator[str]:
    """Dotted names of all modules that a file may import."""
    for node in _nodes(_text_of(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*filter(None, parents), *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def digests(sources: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of each source, hexadecimal."""
    return {path: hashlib.sha256(text.encode()).hexdigest() for path, text in sources.items()}


def reference_to(owner: Any) -> str:
    """What names a class or a function for another process.

    `flowers.py:Flowers` for one of a file below the current folder, else `module:Class`; `__main__:Class` for one of a
    notebook.
    """
    module = sys.modules.get(owner.__module__)
    file = getattr(module, "__file__", None)
    if module is not None and file is not None and is_project_code(module):
        path = Path(file).resolve()
        return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{owner.__qualname__}"
    return f"{owner.__module__}:{owner.__qualname__}"


def name_of(owner: type) -> str:
    """The name by which people know a class: that of its module, or of its file where that is the program."""
    if owner.__module__ != "__main__":
        return owner.__module__.rpartition(".")[2]
    program = sys.modules["__main__"]
    # In a Ray worker `__main__` is Ray's own program.
    file = getattr(program, "__file__", None) if getattr(program, owner.__qualname__, None) is owner else None
    return Path(file).stem if file else owner.__qualname__.lower()


def find_object(reference: str, *, hint: str) -> Any:
    """What `reference_to` named.

    Raises:
        UserError: if it cannot be found by its name, as a function within a function cannot; `hint` says what to do.
    """
    module, _, member = reference.partition(":")
    require("<" not in member, f"{reference} has no name by which it can be found again; {hint}")
    value: Any = sys.modules["__main__"] if module == "__main__" else load_module(module)
    for part in member.split("."):
        require(hasattr(value, part), f"there is no {member} in {module}; {hint}")
        value = getattr(value, part)
    return value
