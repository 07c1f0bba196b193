"""The user's modules are pickled by value, and what cannot be pickled is named."""

import functools
import io
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from blitz.errors import UserError
from blitz.launch.cluster.user_code import require_picklable, shipped
from blitz.project import load_module

LOCK = threading.Lock()
LOAD = "import sys; from ray import cloudpickle; print(cloudpickle.loads(sys.stdin.buffer.read())())"


def test_what_is_sent_takes_the_users_modules_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "sent_sizes.py").write_text("WIDTH = 7\ndef twice(x): return 2 * x\n")
    text = "import sent_sizes\nfrom sent_sizes import twice\ndef area(): return twice(sent_sizes.WIDTH)\n"
    (tmp_path / "sent_areas.py").write_text(text)
    area = load_module(str(tmp_path / "sent_areas.py")).area
    with shipped(), shipped():
        sent = cloudpickle.dumps(area)
    assert not {"sent_areas", "sent_sizes"} & cloudpickle.list_registry_pickle_by_value()
    done = subprocess.run([sys.executable, "-c", LOAD], input=sent, capture_output=True, cwd="/", check=True)
    assert done.stdout == b"14\n"
    assert len(cloudpickle.dumps(area)) < len(sent)


class Rows:
    def __init__(self, transform: Any) -> None:
        self.transform = transform


def locked(x: int) -> int:
    with LOCK:
        return x


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (threading.Lock, r"rows.transform cannot be sent to Ray workers: it holds a lock \(cannot pickle"),
        (lambda: io.FileIO(__file__), "rows.transform cannot be sent .* it holds a FileIO"),
        (lambda: lambda x: locked(x), "rows.transform → locked → LOCK cannot be sent .* it holds a lock"),
        (lambda: {"a": [1, locked]}, r"rows.transform\['a'\]\[1\] → LOCK cannot be sent"),
        (lambda: functools.partial(print, file=(x for x in [1])), r"rows.transform.keywords\['file'\] .* a generator"),
    ],
)
def test_what_cannot_be_sent_is_named_by_its_attribute(made: Callable[[], Any], says: str) -> None:
    rows = Rows(made())
    with pytest.raises(UserError, match=says) as refused:
        require_picklable(rows=rows)
    assert "\n" not in str(refused.value)
    getattr(rows.transform, "close", int)()


def test_a_lambda_can_be_sent() -> None:
    require_picklable(rows=Rows(lambda x: x + 1))
