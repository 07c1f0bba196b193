"""What the recipe promises: it learns, and a stopped run resumes exactly."""

from pathlib import Path

import blitz
from $module import $class_name


def test_it_learns(tmp_path: Path) -> None:
    run = blitz.train($class_name(), storage=str(tmp_path), report=False)
    assert run.metrics["val/accuracy"] > 0.9


def test_a_stopped_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = blitz.train($class_name(epochs=2), storage=str(tmp_path), run="whole", report=False)
    blitz.train($class_name(epochs=2), max_steps=20, storage=str(tmp_path), run="stopped", report=False)
    resumed = blitz.train($class_name(epochs=2), storage=str(tmp_path), run="stopped", report=False)
    one, other = whole.model("last").state_dict(), resumed.model("last").state_dict()
    assert all((one[name] == other[name]).all() for name in one)
