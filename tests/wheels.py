"""An environment in which the wheel of this tree is installed, as people have it, beside the packages of this one."""

import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PARTS = ("blitz", "tune_spaces", "pyproject.toml", "README.md", "LICENSE")
_RAY = """#!{python}
import sys
from ray.scripts.scripts import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Installed:
    """An environment with blitz from its wheel; nothing of it leads to this tree."""

    folder: Path
    wheel: Path

    @property
    def bin(self) -> Path:
        """Where its `python`, `blitz` and `ray` lie."""
        return self.folder / "bin"

    @property
    def site_packages(self) -> Path:
        """Where packages are installed."""
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    @property
    def env(self) -> dict[str, str]:
        """The environment variables for its commands, as after its activation."""
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))}
        return {**outer, "PATH": path, "VIRTUAL_ENV": str(self.folder), "OMP_NUM_THREADS": "1"}

    def run(
        self, *words: str, cwd: Path, env: Mapping[str, str] = {}, code: int = 0, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What a command of its `bin` prints; it leaves with `code`."""
        done = subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            cwd=cwd,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            check=False,
            input=stdin,
        )
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done


def install_wheel(folder: Path) -> Installed:
    """Build the wheel and install it in a new environment in `folder`, in seconds and without a network.

    The packages that blitz needs are those of the environment that runs this, by a .pth file. Such a file does not run
    other .pth files, so an editable blitz of that environment is not seen.
    """
    source = folder / "source"
    source.mkdir(parents=True)
    for name in _PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)], check=True
    )
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    made = Installed(folder / "venv", wheel)
    (made.site_packages / "packages_of_the_tests.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    python = str(made.bin / "python")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    # Ray's own is a script of the other environment, and would start its Python.
    (made.bin / "ray").write_text(_RAY.format(python=python))
    (made.bin / "ray").chmod(0o755)
    return made
