"""Metadata of recipe fields."""

from dataclasses import MISSING, field
from typing import Any

COUNTS = (
    "epochs",
    "max_steps",
    "max_train_rows",
    "max_eval_rows",
    "global_batch_size",
    "micro_batch_size",
    "evaluate_every_steps",
    "patience",
    "log_every_steps",
)
"""Fields of every recipe that are whole numbers from 1 on, or None."""


def may_change(default: Any = MISSING) -> Any:
    """A field that a run may be resumed with another value of: it says how long or where from, not what is learned."""
    return field(default=default, metadata={"may_change": True})


HELD = "held"
"""Metadata of a field that holds an object of the program: it is no setting, and is neither stored nor compared."""


def held(default: Any = None) -> Any:
    """A field with that metadata."""
    return field(default=default, compare=False, repr=False, metadata={HELD: True})
