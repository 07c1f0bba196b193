"""How a run shows its progress; launchers decide what that looks like."""

from typing import Protocol


class Display(Protocol):
    """Shows the progress of a run."""

    def step(self, number: int) -> None:
        """`number` steps are done."""

    def loss(self, value: float) -> None:
        """The newest mean training loss."""

    def line(self, text: str) -> None:
        """Print a line for the user."""


class Silence:
    """Shows nothing."""

    def step(self, number: int) -> None:
        """Does nothing."""

    def loss(self, value: float) -> None:
        """Does nothing."""

    def line(self, text: str) -> None:
        """Does nothing."""
