"""Code of users' own projects: modules by file or by dotted name, and what of it belongs to a recipe."""

import ast
import hashlib
import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from blitz.errors import UserError, require

_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib", "platstdlib"))
_OWN = Path(__file__).resolve().parent


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
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(f"there is no module '{error.name}' in {root} or among what is installed") from error
        raise UserError(f"{what} cannot be imported{_where(error, root)}: {error}") from error
    except Exception as error:
        raise UserError(f"{what} cannot be imported{_where(error, root)}: {type(error).__name__}: {error}") from error


def _where(error: Exception, root: Path) -> str:
    """The last line of the project that led to the error."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}:{error.lineno})"
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(f"{root}/")]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def is_project_code(module: ModuleType) -> bool:
    """Whether a module is a file of the user's project: neither installed, nor a part of Python or of blitz."""
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in (*_INSTALLED, _OWN))


def project_modules() -> list[ModuleType]:
    """The modules of the user's project that are imported."""
    found = [module for name, module in list(sys.modules.items()) if name != "__main__" and "." not in name[:1]]
    return [module for module in found if isinstance(module, ModuleType) and is_project_code(module)]


def sources_of(owner: type) -> dict[str, str]:
    """The source text that a class of the user's project consists of, by path: its file, and the project's files that
    this imports, however indirectly. A class of a notebook is its own text alone; one that is installed is empty.
    """
    module = sys.modules[owner.__module__]
    if getattr(module, "__file__", None) is None:
        return {f"{owner.__qualname__}.py": _text_of_class(owner)}
    if not is_project_code(module):
        return {}
    files: dict[Path, None] = {}
    _add_sources(module, files)
    root = Path(str(module.__file__)).resolve().parent
    return {_relative(file, root): file.read_text() for file in sorted(files)}


def _text_of_class(owner: type) -> str:
    try:
        return inspect.getsource(owner)
    except (OSError, TypeError):
        return ""


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
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*filter(None, parents), *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _relative(file: Path, root: Path) -> str:
    # A package's other folders lie above the file; the names only have to be told apart.
    return str(file.relative_to(root)) if file.is_relative_to(root) else f"{file.parent.name}/{file.name}"


def digests(sources: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of each source, hexadecimal."""
    return {path: hashlib.sha256(text.encode()).hexdigest() for path, text in sources.items()}


def reference_to(owner: Any) -> str:
    """What names a class or a function for another process.

    `flowers.py:Flowers` for one of a file below the current folder, else `module:Class`; `__main__:Class` for one of a
    notebook.
    """
    module = sys.modules[owner.__module__]
    file = getattr(module, "__file__", None)
    if file is not None and is_project_code(module):
        path = Path(file).resolve()
        return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{owner.__qualname__}"
    return f"{owner.__module__}:{owner.__qualname__}"


def name_of(owner: type) -> str:
    """The name by which people know a class: that of its module, or of its file where that is the program."""
    if owner.__module__ != "__main__":
        return owner.__module__.rpartition(".")[2]
    file = getattr(sys.modules["__main__"], "__file__", None)
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
