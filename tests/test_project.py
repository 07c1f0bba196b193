"""Recipes from anywhere: by file, by module, by entry point; and what a recipe's code consists of."""

import linecache
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from blitz.errors import UserError
from blitz.project import digests, load_module, project_modules, sources_of
from blitz.recipes import find_recipe, recipe_from_json, recipe_to_json, reference_of
from blitz.recipes.digits import Digits

RECIPE = """
from dataclasses import dataclass

from blitz.recipes.digits import Digits
from {sizes} import WIDTH


@dataclass(frozen=True)
class Flowers(Digits):
    width: int = WIDTH
"""

IMPORTS = "from blitz import Recipe\nfrom blitz.recipes.digits import Digits\nfrom dataclasses import dataclass\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in, of which nothing stays imported."""
    monkeypatch.chdir(tmp_path)
    before = {*sys.modules}
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in {*sys.modules} - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_file_is_a_recipe_and_imports_what_lies_beside_it(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "flower_sizes.py").write_text("WIDTH = 7\n")
    (folder / "mine" / "flowers.py").write_text(RECIPE.format(sizes="flower_sizes"))
    kind = find_recipe("mine/flowers.py")
    assert kind().name == "flowers"
    assert kind().width == 7  # type: ignore[attr-defined]
    assert reference_of(kind) == "mine/flowers.py:Flowers"
    assert find_recipe(reference_of(kind)) is kind
    assert recipe_from_json(recipe_to_json(kind(seed=3))) == kind(seed=3)
    sources = sources_of(kind)
    assert [*sources] == ["flower_sizes.py", "flowers.py"]
    (folder / "mine" / "flower_sizes.py").write_text("WIDTH = 8\n")
    changed = digests(sources_of(kind))
    assert [path for path, digest in digests(sources).items() if changed[path] != digest] == ["flower_sizes.py"]


def test_a_module_of_a_package_is_a_recipe(folder: Path) -> None:
    package = folder / "garden_package" / "recipes"
    package.mkdir(parents=True)
    for each in (folder / "garden_package", package):
        (each / "__init__.py").touch()
    (package / "sizes.py").write_text("WIDTH = 7\n")
    (package / "flowers.py").write_text(RECIPE.format(sizes=".sizes"))
    kind = find_recipe("garden_package.recipes.flowers:Flowers")
    assert find_recipe("garden_package.recipes.flowers") is kind
    assert find_recipe("garden_package/recipes/flowers.py") is kind
    assert [*sources_of(kind)] == ["flowers.py", "sizes.py"]


def test_one_that_ships_is_known_by_its_name_and_has_no_code_of_the_users() -> None:
    assert reference_of(Digits) == "digits"
    assert find_recipe("blitz.recipes.digits:Digits") is Digits
    assert sources_of(Digits) == {}


def test_an_installed_package_brings_recipes_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip leaves it: the package, and its metadata with the entry point."""
    (folder / "brought_recipe.py").write_text(RECIPE.format(sizes="brought_sizes"))
    (folder / "brought_sizes.py").write_text("WIDTH = 7\n")
    info = folder / "garden-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: garden\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[blitz.recipes]\nroses = brought_recipe:Flowers\ndigits = brought_recipe:Flowers\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    assert find_recipe("roses").__name__ == "Flowers"
    with pytest.raises(UserError, match="2 recipes are named 'digits': one of blitz, brought_recipe:Flowers of garden"):
        find_recipe("digits")


@pytest.mark.parametrize(
    ("text", "reference", "says"),
    [
        (None, "broken.py", "there is no file broken.py"),
        (None, "no_such_package.flowers:Flowers", "there is no module 'no_such_package' in "),
        ("import no_such_library\n", "broken.py", r"broken.py cannot be imported \(.*broken.py:1\): No module named"),
        ("x = 1\ny = x / 0\n", "broken.py", r"broken.py cannot be imported \(.*broken.py:2\): ZeroDivisionError"),
        ("def f(:\n", "broken.py", r"broken.py cannot be imported \(.*broken.py:1\): SyntaxError"),
        ("x = 1\n", "broken.py", "broken.py defines 0 recipes; a recipe derives from blitz.Recipe"),
        ("class Net: pass\n", "broken.py:Net", "Net of .*broken.py is no recipe: it must be a class derived from"),
        ("class Net: pass\n", "broken.py:Nat", "broken.py has no Nat"),
        (
            "from blitz.recipes.digits import Digits\nclass A(Digits): pass\nclass B(Digits): pass\n",
            "broken.py",
            r"broken.py defines 2 recipes \(A, B\); name one, as in broken.py:A",
        ),
        ("x = 1\n", "broken", r"there is no recipe 'broken'; perhaps ./broken.py; there are blobs, "),
        (
            "import sys\nsys.exit(3)\n",
            "broken.py",
            r"broken.py cannot be imported \(.*broken.py:2\): it calls sys.exit",
        ),
        ("import broken_too\n", "broken.py", r"\(.*broken_too.py:1\): ImportError: cannot import name 'x' .*circular"),
        (
            "class A(Recipe): pass\n",
            "broken.py",
            "A of .*broken.py lacks build_model, dataset, loss, which every recipe",
        ),
        (
            "class A(Digits):\n    size: int = 3\n",
            "broken.py",
            r"A of .*broken.py has settings \(size\) but is no dataclass; write @dataclass\(frozen=True\)",
        ),
        (
            "@dataclass(frozen=True, kw_only=True)\nclass A(Digits):\n    size: int\n",
            "broken.py",
            "A of .*broken.py has no default for size; give every field one",
        ),
        (
            "@dataclass\nclass A(Digits): pass\n",
            "broken.py",
            r"broken.py cannot be imported \(.*broken.py:\d\): TypeError: cannot inherit non-frozen dataclass",
        ),
    ],
)
def test_what_is_no_recipe_is_one_line(folder: Path, text: str | None, reference: str, says: str) -> None:
    if text is not None:
        needs_imports = text.startswith(("class A(", "@dataclass"))
        (folder / "broken.py").write_text(f"{IMPORTS if needs_imports else ''}{text}")
    (folder / "broken_too.py").write_text("from broken import x\n")
    with pytest.raises(UserError, match=says):
        find_recipe(reference)


def test_a_name_that_python_has_is_refused(folder: Path) -> None:
    (folder / "json.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"json.py cannot be imported as 'json': .*json.* has that name; rename it"):
        find_recipe("json.py")


@pytest.mark.parametrize("name", ["my-flowers.py", "my flowers.py", "2flowers.py"])
def test_a_file_whose_name_is_no_module_name_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("x = 1\n")
    with pytest.raises(UserError, match=rf"{name}: {name[:-3]} is no name for a Python module; rename it to letters"):
        find_recipe(name)


def test_a_package_needs_no_init_file_and_a_file_may_print(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bare_package").mkdir()
    (folder / "bare_package" / "sizes.py").write_text("WIDTH = 7\nprint('imported')\n")
    (folder / "bare_package" / "flowers.py").write_text(RECIPE.format(sizes="bare_package.sizes"))
    kind = find_recipe("bare_package.flowers")
    assert capsys.readouterr().out == "imported\n"
    assert [*sources_of(kind)] == ["flowers.py", "sizes.py"]
    assert {"bare_package", "bare_package.flowers", "bare_package.sizes"} <= {one.__name__ for one in project_modules()}


def test_a_base_class_that_others_complete_is_not_counted(folder: Path) -> None:
    text = f"{IMPORTS}class Base(Recipe): pass\n@dataclass(frozen=True)\nclass Based(Digits, Base): pass\n"
    (folder / "based.py").write_text(text)
    assert find_recipe("based.py").__name__ == "Based"


def test_of_the_program_itself_only_the_text_of_what_is_used_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook: no file, but each cell's text in linecache, as IPython leaves it."""
    (folder / "flower_shapes.py").write_text("ROUND = 1\n")
    load_module("flower_shapes")
    cell = "import flower_shapes\nclass Net:\n    def size(self):\n        return 3\nrun = Net()\n"
    monkeypatch.setitem(linecache.cache, "<cell 1>", (len(cell), None, cell.splitlines(keepends=True), "<cell 1>"))
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    exec(compile(cell, "<cell 1>", "exec"), vars(notebook))
    assert sources_of(vars(notebook)["Net"]) == {
        "Net.py": "class Net:\n    def size(self):\n        return 3",
        "flower_shapes.py": "ROUND = 1\n",
    }
