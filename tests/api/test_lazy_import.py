"""`import blitz` costs nothing until something of it is used."""

import subprocess
import sys

import blitz

_SLOW = {"torch", "ray", "pyarrow", "numpy", "tyro", "torchvision"}


def test_import_blitz_imports_nothing_slow() -> None:
    code = "import sys, blitz; print(*{name.partition('.')[0] for name in sys.modules})"
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not _SLOW & {*imported}


def test_every_public_name_is_there_and_documented() -> None:
    # A Literal has no docstring of its own.
    for name in {*blitz.__all__} - {"Split"}:
        assert getattr(blitz, name).__doc__, name
    assert {*blitz.__all__} <= {*dir(blitz)}
