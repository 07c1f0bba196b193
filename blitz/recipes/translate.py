"""Sequence to sequence: sentences of one language into another, by a GRU with attention or a small Transformer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn

from blitz.data.plan import Split
from blitz.data.text.pairs import PairRows, csv_rows_to_translate, fit_pairs, lines_to_translate, pair_rows
from blitz.data.text.sentences import PairData
from blitz.data.text.vocabulary import END, PAD
from blitz.errors import require
from blitz.models.gru_translator import GRUTranslator
from blitz.models.transformer import TransformerTranslator
from blitz.models.translator import GreedySearch, Translation, Translator, trimmed
from blitz.optim import Optim
from blitz.outputs.bleu import Bleu
from blitz.outputs.examples import Example, translation_examples
from blitz.recipe import Batch, Draws, may_change
from blitz.text_recipe import LearnsText


@dataclass(frozen=True)
class TranslatorModel:
    """The network."""

    name: Literal["gru", "transformer"] = "gru"
    """A bidirectional GRU and one with Luong attention; or a Transformer."""
    width: int = 256
    """Width of embeddings and layers."""
    layers: int | None = None
    """Layers of the encoder, and of the decoder; by default 1 for the GRU and 3 for the Transformer."""
    attention: Literal["dot", "general"] = "general"
    """For the GRU: Luong's score."""
    heads: int = 4
    """For the Transformer: heads of its attention."""
    dropout: float = 0.2
    """Dropout probability between layers."""

    def __post_init__(self) -> None:
        fits = self.width >= 2 and self.width % 2 == 0 and self.heads >= 1 and self.width % self.heads == 0
        require(fits, f"--model.width is {self.width}; it must be even, and a multiple of --model.heads {self.heads}")
        require(self.layers is None or self.layers >= 1, f"--model.layers is {self.layers}; it must be at least 1")
        require(0 <= self.dropout < 1, f"--model.dropout is {self.dropout}; it must be in [0, 1)")


@dataclass(frozen=True)
class Translate(LearnsText):
    """Translates sentences; BLEU by sacrebleu. --data.root names files such as train.en and train.de, or take a CSV."""

    epochs: int = may_change(10)
    global_batch_size: int = 64
    micro_batch_size: int | None = may_change(128)
    optim: Optim = Optim(name="adam", lr=2e-3, grad_clip_norm=1.0, schedule="cosine", warmup_steps=200)
    data: PairData = PairData()
    model: TranslatorModel = TranslatorModel()
    teacher_forcing: float = 1.0
    """For the GRU: the share of tokens for which training feeds the target's token, not the predicted one."""
    label_smoothing: float = 0.1
    """Label smoothing: the share of probability distributed over all tokens in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, share in (("teacher-forcing", self.teacher_forcing), ("label-smoothing", self.label_smoothing)):
            require(0 <= share <= 1, f"--{name} is {share}; it must be from 0 to 1")
        forces = self.teacher_forcing == 1 or self.model.name == "gru"
        require(forces, "--teacher-forcing is for the GRU: a Transformer computes all positions at once; leave it out")

    def fitted(self) -> Self:
        return replace(self, fitted_on=fit_pairs(self.data, self.seed))

    def dataset(self, split: Split) -> PairRows:
        return pair_rows(self.data, self.fit, split, self.seed)

    def inputs(self, csv: str) -> Any:
        return csv_rows_to_translate(self.data, self.fit, csv)

    def line_inputs(self, lines: list[str]) -> PairRows:
        return lines_to_translate(self.data, self.fit, lines)

    def build_model(self) -> nn.Module:
        model, size = self.model, len(self.vocabulary)
        general: Any = {"vocabulary": size, "width": model.width, "dropout": model.dropout}
        if model.name == "gru":
            return GRUTranslator(**general, layers=model.layers or 1, score=model.attention)
        return TransformerTranslator(**general, layers=model.layers or 3, heads=model.heads)

    def sharded_blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        # Not the decoder's layers: a search calls parts of them, and on each worker as often as its own rows need.
        encoder: Any = model.encoder
        return [*encoder]

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        if self.teacher_forcing == 1:
            return batch
        return {**batch, "forced": draws(batch["target"].shape[1]) < self.teacher_forcing}

    def forward(self, model: nn.Module, batch: Batch) -> Translation:
        source = trimmed(batch["source"])
        tokens = attention = scores = None
        assert isinstance(model, Translator)
        if not model.training:
            tokens, attention = GreedySearch(model, self.data.max_tokens).search(source)
        if "target" in batch:
            target = trimmed(batch["target"])
            forced = batch["forced"][:, : target.shape[1]] if "forced" in batch else None
            scores = model(source, target, forced)
        return Translation(scores, tokens, attention)

    def loss(self, outputs: Translation, batch: Batch) -> Tensor:
        # Sums over tokens, each of which counts as much as any other, in units of a translation of mean length: the
        # gradient is as large as that of a mean over tokens, and does not depend on which rows share a batch.
        assert outputs.scores is not None
        target = batch["target"].long()
        kept = target != PAD
        smoothing = self.label_smoothing if outputs.tokens is None else 0.0
        losses = F.cross_entropy(outputs.scores, target[kept], reduction="none", label_smoothing=smoothing)
        by_token = losses.new_zeros(target.shape).masked_scatter(kept, losses)
        return by_token.sum(1) / self.fit.target_tokens

    def predictions(self, outputs: Translation, batch: Batch) -> dict[str, list[str] | list[float]]:
        assert outputs.tokens is not None
        return {"prediction": self.vocabulary.decode(outputs.tokens.tolist())}

    def examples(self, outputs: Translation, batch: Batch) -> list[Example]:
        assert outputs.tokens is not None
        assert outputs.attention is not None
        return translation_examples(
            self.vocabulary, batch["source"], batch["target"], outputs.tokens, outputs.attention
        )

    def deployed(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(model, Translator)
        return {"tokens": GreedySearch(model, self.data.max_tokens)(batch["source"].long())}

    def signature(self) -> dict[str, Any]:
        return {"tokenizer": self.vocabulary.to_json(), "end": END}

    def metrics(self) -> Bleu:
        return Bleu(self.vocabulary, self.fit.target_tokens)
