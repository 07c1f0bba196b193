"""Lines of text as a language model takes them: what is fitted on the training lines, and rows of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blitz.data.arrays import Columns
from blitz.data.order import Rows
from blitz.data.plan import Split
from blitz.data.text.pairs import PairRows, TextFit
from blitz.data.text.sentences import Lines, read_lines
from blitz.data.text.vocabulary import Vocabulary
from blitz.errors import DataError, require
from blitz.fields import may_change


@dataclass(frozen=True)
class LineData:
    """The texts: one on each line of a file."""

    root: str | None = may_change(None)
    """Folder of files such as train.en and val.en, also packed as train.en.gz: one text a line."""
    suffix: str = "en"
    """The suffix of the files."""
    test: str = may_change("test_2016_flickr")
    """In --data.root, the file for blitz evaluate --split test."""
    vocabulary: int = 4000
    """Tokens: pieces of words that are learned from the training lines."""
    max_tokens: int = 64
    """Longer lines are cut to so many tokens, and sampled ones end there."""

    def __post_init__(self) -> None:
        require(self.vocabulary >= 300, f"--data.vocabulary is {self.vocabulary}; it must be at least 300")
        require(self.max_tokens >= 2, f"--data.max-tokens is {self.max_tokens}; it must be at least 2")

    def lines(self, split: Split, *, content: str | None = None) -> Lines:
        """The lines of a split that are not blank; those to train on must have the hash `content`.

        Raises:
            DataError: if the file is missing or has changed.
            UserError: if `root` names no folder.
        """
        require(self.root is not None, f"name the lines to train on: --data.root DIR with train.{self.suffix}")
        assert self.root is not None
        name = {"train": "train", "val": "val", "test": self.test}[split]
        lines = Lines([line for line in read_lines(self.root, f"{name}.{self.suffix}") if line.strip()])
        if not len(lines):
            raise DataError(f"{self.root}: {name}.{self.suffix} has no line that is not blank")
        if split == "train" and content not in (None, lines.content):
            raise DataError(f"{self.root} has changed since the run was started; restore it, or start another run")
        return lines


def fit_lines(data: LineData) -> TextFit:
    """The vocabulary of the training lines; prints how many lines are cut.

    Raises:
        DataError: if there are none.
    """
    lines = data.lines("train")
    texts, _ = lines.texts(np.arange(len(lines)))
    vocabulary = Vocabulary.learned(texts, data.vocabulary)
    lengths = np.array([len(row) + 1 for row in vocabulary.encode(texts)])
    if cut := np.count_nonzero(lengths > data.max_tokens):
        print(f"{cut:,} of {len(texts):,} lines are longer than --data.max-tokens {data.max_tokens}, and are cut")
    return TextFit(lines.content, vocabulary.merges, float(np.minimum(lengths, data.max_tokens).mean()))


class Prompts(PairRows):
    """The first tokens of lines, with their `row`, int64 (batch,), from which follows what is drawn for them."""

    def __init__(self, lines: Sequence[str], fit: TextFit, max_tokens: int) -> None:
        super().__init__(Lines(lines), fit, max_tokens)

    def __getitems__(self, rows: Rows) -> Columns:
        """See `PairRows`."""
        return {**super().__getitems__(rows), "row": rows.astype(np.int64)}
