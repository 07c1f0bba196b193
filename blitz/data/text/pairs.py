"""Pairs of sentences as a model takes them: what is fitted on the training rows, and rows of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from blitz.data.arrays import Columns
from blitz.data.csv.reading.index import CsvIndex
from blitz.data.order import Rows
from blitz.data.plan import Split
from blitz.data.text.sentences import (
    CsvSentences,
    Lines,
    PairData,
    Sentences,
    csv_sentences,
    each_pair,
    sentences_of,
)
from blitz.data.text.vocabulary import Merges, Vocabulary
from blitz.errors import DataError
from blitz.fields import may_change

_MEASURED_ROWS = 50_000


@dataclass(frozen=True)
class TextFit:
    """What was fitted on the training rows; a run only resumes on the same `content`, which decides the rest."""

    content: str
    """A hash of the sentences."""
    merges: Merges = may_change()
    """The vocabulary, of both languages."""
    target_tokens: float = may_change()
    """Mean tokens of a translation, its end included."""


class PairRows:
    """Rows of tokens, all equally wide; the model trims a batch to its longest row."""

    def __init__(self, sentences: Sentences, fit: TextFit, max_tokens: int, *, reference_bytes: int = 0) -> None:
        self.sentences, self.vocabulary = sentences, Vocabulary(fit.merges)
        self.max_tokens, self.reference_bytes = max_tokens, reference_bytes
        self.left_out = sentences.left_out

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitems__(self, rows: Rows) -> Columns:
        """`source` and, if it is known, `target`, int32 (batch, max_tokens): tokens, the end, and padding.

        Rows to evaluate on have `reference`, uint8 (batch, reference_bytes): the target as UTF-8, and zeros.
        """
        sources, targets = self.sentences.texts(rows)
        columns: dict[str, npt.NDArray[np.int32 | np.uint8]] = {"source": self._tokens(sources)}
        if targets is not None:
            columns["target"] = self._tokens(targets)
            if self.reference_bytes:
                columns["reference"] = _as_bytes(targets, self.reference_bytes)
        return columns

    def _tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        return self.vocabulary.padded(texts, self.max_tokens)


class CsvPairRows(PairRows):
    """Rows of a CSV to translate."""

    sentences: CsvSentences

    @property
    def index(self) -> CsvIndex:
        """The index of the CSV."""
        return self.sentences.table.index


def fit_pairs(data: PairData, seed: int) -> TextFit:
    """The vocabulary of the training rows; prints how many sentences are cut.

    Raises:
        DataError: if there are none, or they cannot be used.
        UserError: if `data` names none.
    """
    sentences = sentences_of(data, "train", seed)
    if not len(sentences):
        raise DataError(f"{data.root or data.train_csv} has no pair of sentences to train on")
    if isinstance(sentences, Lines) and sentences.blank:
        print(f"{data.root}: {sentences.blank:,} pairs of lines, of which one is empty, are left out")
    if isinstance(sentences, CsvSentences):
        index = sentences.table.index
        print(f"{index.csv}: {index.described()}")
    vocabulary = Vocabulary.learned(chain.from_iterable(each_pair(sentences)), data.vocabulary)
    sources, targets = (
        np.array([len(row) + 1 for row in vocabulary.encode(texts)])
        for texts in zip(*islice(each_pair(sentences), _MEASURED_ROWS), strict=True)
    )
    cut = np.count_nonzero(np.maximum(sources, targets) > data.max_tokens)
    if cut:
        print(f"{cut:,} of {len(sources):,} pairs are longer than --data.max-tokens {data.max_tokens}, and are cut")
    return TextFit(sentences.content, vocabulary.merges, float(np.minimum(targets, data.max_tokens).mean()))


def pair_rows(data: PairData, fit: TextFit, split: Split, seed: int) -> PairRows:
    """The rows of a split; those to evaluate on have references.

    Raises:
        DataError: if they cannot be used, or the training rows are not what was fitted on.
    """
    sentences = sentences_of(data, split, seed, content=fit.content)
    longest = 0 if split == "train" else max((len(target.encode()) for _, target in each_pair(sentences)), default=0)
    return PairRows(sentences, fit, data.max_tokens, reference_bytes=longest)


def csv_rows_to_translate(data: PairData, fit: TextFit, csv: str) -> CsvPairRows:
    """The rows of a CSV to translate, bad ones included.

    Raises:
        DataError: if it cannot be read, or lacks the column.
    """
    return CsvPairRows(csv_sentences(data, csv, (data.source,), keep_bad=True), fit, data.max_tokens)


def lines_to_translate(data: PairData, fit: TextFit, lines: Sequence[str]) -> PairRows:
    """Sentences in memory to translate."""
    return PairRows(Lines(lines), fit, data.max_tokens)


def _as_bytes(texts: Sequence[str], width: int) -> npt.NDArray[np.uint8]:
    rows = np.zeros((len(texts), width), np.uint8)
    for row, text in zip(rows, texts, strict=True):
        data = text.encode()
        row[: len(data)] = np.frombuffer(data, np.uint8)
    return rows
