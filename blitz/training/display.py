"""How a run shows how far it is; where it happens decides what that looks like."""

from typing import Protocol


class Display(Protocol):
    """Where a run shows how far it is."""

    def step(self, number: int) -> None:
        """So many steps are done."""

    def loss(self, value: float) -> None:
        """The newest mean training loss."""

    def line(self, text: str) -> None:
        """A line for the user to read."""


class Silence:
    """Shows nothing."""

    def step(self, number: int) -> None:
        """Nothing."""

    def loss(self, value: float) -> None:
        """Nothing."""

    def line(self, text: str) -> None:
        """Nothing."""
