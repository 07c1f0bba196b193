"""Prediction intervals from the errors of held-out rows (conformal prediction).

Of exchangeable rows, at least a share `level` lies in the interval of split conformal prediction (Lei, G'Sell, Rinaldo,
Tibshirani & Wasserman 2018, "Distribution-free predictive inference for regression", J. Am. Stat. Assoc. 113). For
models of folds there is CV+ (Barber, Candès, Ramdas & Tibshirani 2021, "Predictive inference with the jackknife+", Ann.
Stat. 49), which is usually as good and guarantees 2 · level - 1.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from blitz.errors import require


def require_level(level: float) -> None:
    """Refuse a level of which there is no interval.

    Raises:
        UserError: unless it is between 0 and 1.
    """
    require(0 < level < 1, f"--intervals is {level:g}; it is the share of rows in their interval, such as 0.9")


@dataclass(frozen=True)
class HeldOutErrors:
    """How far outputs were off, for rows that their model was not trained on."""

    errors: Tensor
    """|output - target|, float64 of shape (rows, columns)."""
    folds: Tensor | None = None
    """The fold of each row, whose model gave its outputs, int64 of shape (rows,)."""

    def rank(self, level: float) -> int:
        """Which of the errors, from the smallest, bounds the interval: from 1 to the number of rows.

        Raises:
            UserError: if there are too few.
        """
        rows = len(self.errors)
        # Less than a row, so that rounding of the product does not count.
        rank = math.ceil((rows + 1) * level - 1e-9)
        least = math.ceil(level / (1 - level) - 1e-9)
        require(
            rank <= rows,
            f"--intervals {level:g} needs at least {least} validation rows, and there are {rows}; give a lower level",
        )
        return rank

    def bounds(self, outputs: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """The ends of the interval of each output, of shape (batch, columns), as float64.

        Outputs are (batch, columns), or where errors have folds (folds, batch, columns).

        Raises:
            UserError: if there are too few errors.
        """
        rank, errors, outputs = self.rank(level), self.errors.to(outputs.device), outputs.double()
        if self.folds is None:
            reach = errors.sort(0).values[rank - 1]
            return outputs - reach, outputs + reach
        # (rows, batch, columns)
        of_row = outputs[self.folds.to(outputs.device)]
        low = (of_row - errors[:, None]).kthvalue(len(errors) + 1 - rank, 0).values
        return low, (of_row + errors[:, None]).kthvalue(rank, 0).values
