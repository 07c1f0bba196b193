"""What recipes over text share: the vocabulary that was fitted on the training rows."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from blitz.data.plan import Split
from blitz.data.text.pairs import TextFit
from blitz.data.text.vocabulary import Vocabulary
from blitz.recipe import Recipe


@dataclass(frozen=True)
class LearnsText(Recipe):
    """A recipe over tokens of text, which has training, validation and test rows."""

    fitted_on: Annotated[TextFit | None, tyro.conf.Suppress] = None

    @property
    def fit(self) -> TextFit:
        """What was fitted on the training rows."""
        assert self.fitted_on is not None
        return self.fitted_on

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer."""
        return Vocabulary(self.fit.merges)

    @property
    def splits(self) -> tuple[Split, ...]:
        """All three."""
        return ("train", "val", "test")
