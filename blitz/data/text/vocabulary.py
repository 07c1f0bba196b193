"""Tokenising text: byte-pair encoding that is learned from the training text, and lossless."""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from blitz.extras import extra

PAD, BEGIN, END = 0, 1, 2
"""Special tokens: padding, the start of a translation, and the end of a sentence."""

Tokens = npt.NDArray[np.int32]
Merges = tuple[str, ...]
"""Two pieces each, with a blank between them, in the order in which they were learned; a piece holds no blank."""

_WHAT = "a vocabulary of byte pairs"
_SPECIAL = 3
SMALLEST = _SPECIAL + 256
"""Tokens of a vocabulary without merges: one for each byte, so that every character can be encoded."""


class Vocabulary:
    """Byte-pair encoding over the bytes of UTF-8 (Radford et al. 2019), by the `tokenizers` library.

    Two vocabularies of the same merges are the same.
    """

    def __init__(self, merges: Merges) -> None:
        self.merges = merges

    @classmethod
    def learned(cls, texts: Iterable[str], size: int) -> "Vocabulary":
        """One of at most `size` tokens, from the pieces that occur together most often in `texts`."""
        with extra("text", what=_WHAT):
            from tokenizers.trainers import BpeTrainer

        tokenizer = _built(())
        trainer = BpeTrainer(vocab_size=size - _SPECIAL, initial_alphabet=_alphabet(), show_progress=False)
        tokenizer.train_from_iterator((f" {text}" for text in texts), trainer)
        return cls(tuple(" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]))

    def __len__(self) -> int:
        return _SPECIAL + int(_tokenizer(self.merges).get_vocab_size())

    def to_json(self) -> str:
        """For `tokenizers.Tokenizer.from_str`, without the special tokens: its ids count from 0 after them.

        A text must be preceded by a blank.
        """
        text: str = _tokenizer(self.merges).to_str()
        return text

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without an end."""
        encodings = _tokenizer(self.merges).encode_batch([f" {text}" if text else "" for text in texts])
        return [[number + _SPECIAL for number in encoding.ids] for encoding in encodings]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        """The text of each row of tokens up to its end; bytes that are no UTF-8 are shown as �."""
        ids = [[number - _SPECIAL for number in _until_end(row) if number >= _SPECIAL] for row in rows]
        # Every text is encoded with a blank before it, so that its first word is like any other.
        return [text.removeprefix(" ") for text in _tokenizer(self.merges).decode_batch(ids)]

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The text of each token of a row up to its end, which is shown as ⏎."""
        row = _until_end(row)
        return [*_tokenizer(self.merges).decode_batch([[n - _SPECIAL] for n in row if n >= _SPECIAL]), "⏎"]

    def padded(self, texts: Sequence[str], width: int) -> Tokens:
        """Tokens of shape (texts, width): each text's, its end, and padding.

        A text of `width` tokens or more is cut: its last token then is no end.
        """
        rows = np.full((len(texts), width), PAD, np.int32)
        for row, numbers in zip(rows, self.encode(texts), strict=True):
            cut = [*numbers, END][:width]
            row[: len(cut)] = cut
        return rows


def _until_end(row: Sequence[int]) -> list[int]:
    row = list(row)
    return row[: row.index(END)] if END in row else row


def _alphabet() -> list[str]:
    with extra("text", what=_WHAT):
        from tokenizers.pre_tokenizers import ByteLevel

    # The library lists it in a different order each time.
    return sorted(ByteLevel.alphabet())


@lru_cache(maxsize=4)
def _tokenizer(merges: Merges) -> Any:
    """A shared tokenizer, which must not be changed."""
    return _built(merges)


def _built(merges: Merges) -> Any:
    # Imported here, because a training process only needs it to fetch rows or to evaluate.
    with extra("text", what=_WHAT):
        from tokenizers import Tokenizer, decoders
        from tokenizers.models import BPE
        from tokenizers.pre_tokenizers import ByteLevel

    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    # Two merges may give the same piece.
    pieces = dict.fromkeys([*_alphabet(), *(left + right for left, right in pairs)])
    tokenizer = Tokenizer(BPE({piece: number for number, piece in enumerate(pieces)}, pairs))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
