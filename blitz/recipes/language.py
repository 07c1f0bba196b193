"""A small language model: the next token of lines of text, by a decoder-only Transformer."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blitz.data.plan import Split
from blitz.data.text.lines import LineData, Prompts, fit_lines
from blitz.data.text.pairs import PairRows
from blitz.data.text.vocabulary import BEGIN, END, PAD
from blitz.errors import require
from blitz.models.language_model import LanguageModel
from blitz.models.translator import trimmed
from blitz.optim import Optim
from blitz.outputs.perplexity import Perplexity
from blitz.randomness import Use, key_for, keys_for, uniforms
from blitz.recipe import Batch, may_change
from blitz.text_recipe import LearnsText


@dataclass(frozen=True)
class DecoderModel:
    """The network: 1.8 million parameters by default."""

    width: int = 128
    """Width of embeddings and layers."""
    layers: int = 4
    """Blocks of attention and feedforward."""
    heads: int = 4
    """Heads of the attention."""
    dropout: float = 0.1
    """Dropout probability of what a block adds."""

    def __post_init__(self) -> None:
        require(self.heads >= 1, f"--model.heads is {self.heads}; it must be at least 1")
        fits = self.width >= 2 and self.width % (2 * self.heads) == 0
        require(fits, f"--model.width is {self.width}; it must be a multiple of 2 · --model.heads {self.heads}")
        require(self.layers >= 1, f"--model.layers is {self.layers}; it must be at least 1")
        require(0 <= self.dropout < 1, f"--model.dropout is {self.dropout}; it must be in [0, 1)")


@dataclass(frozen=True)
class Texts:
    """What the model makes of rows: scores of all next tokens, or sampled tokens where the rows are prompts."""

    scores: Tensor | None
    tokens: Tensor | None = None


@dataclass(frozen=True)
class Language(LearnsText):
    """Learns lines of text, token by token; --data.root names files such as train.en. `blitz predict` samples."""

    epochs: int = may_change(10)
    global_batch_size: int = 64
    micro_batch_size: int | None = may_change(64)
    optim: Optim = Optim(
        name="adamw", lr=2e-3, weight_decay=0.1, grad_clip_norm=1.0, schedule="cosine", warmup_steps=200
    )
    data: LineData = LineData()
    model: DecoderModel = DecoderModel()
    temperature: float = may_change(0.8)
    """For sampling: below 1 likely tokens are drawn more often; 0 takes the most likely one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature >= 0, f"--temperature is {self.temperature}; it must not be below 0")

    def fitted(self) -> Self:
        return replace(self, fitted_on=fit_lines(self.data))

    def dataset(self, split: Split) -> PairRows:
        return PairRows(self.data.lines(split, content=self.fit.content), self.fit, self.data.max_tokens)

    def line_inputs(self, lines: list[str]) -> Prompts:
        return Prompts(lines, self.fit, self.data.max_tokens)

    def build_model(self) -> nn.Module:
        model, size = self.model, len(self.vocabulary)
        return LanguageModel(
            vocabulary=size, width=model.width, layers=model.layers, heads=model.heads, dropout=model.dropout
        )

    def forward(self, model: nn.Module, batch: Batch) -> Texts:
        if "row" in batch:
            return Texts(None, self._sampled(model, batch["source"].long(), batch["row"]))
        return Texts(model(_begun(trimmed(batch["source"]))))

    def loss(self, outputs: Texts, batch: Batch) -> Tensor:
        # As in `translate`: every token counts as much as any other, whichever rows share its batch.
        assert outputs.scores is not None
        target = trimmed(batch["source"])
        losses = F.cross_entropy(outputs.scores.flatten(0, 1), target.flatten(), ignore_index=PAD, reduction="none")
        return losses.reshape(target.shape).sum(1) / self.fit.target_tokens

    def _sampled(self, model: nn.Module, prompts: Tensor, rows: Tensor) -> Tensor:
        """The prompts, continued up to an end or to `max_tokens`; what is drawn depends on the seed and the row."""
        length = prompts.shape[1]
        keys = keys_for(key_for(Use.GENERATION, self.seed), rows.cpu().numpy().astype("uint64"))
        draws = torch.from_numpy(uniforms(keys, length)).to(prompts.device)
        # A prompt ends with its end, which is where sampling starts.
        given = prompts.ne(PAD) & prompts.ne(END)
        tokens = torch.where(given, prompts, PAD)
        for position in range(length):
            # All tokens each time: a token at a later position changes none before it.
            scores = model(_begun(tokens))[:, position].float()
            scores[:, [PAD, BEGIN]] = -torch.inf
            drawn = scores.argmax(1) if self.temperature == 0 else _drawn(scores / self.temperature, draws[:, position])
            tokens[:, position] = torch.where(given[:, position], tokens[:, position], drawn)
        return tokens

    def predictions(self, outputs: Texts, batch: Batch) -> dict[str, list[str] | list[float]]:
        assert outputs.tokens is not None
        return {"prediction": self.vocabulary.decode(outputs.tokens.tolist())}

    def deployed(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"scores": model(_begun(batch["source"].long()))}

    def signature(self) -> dict[str, Any]:
        return {"tokenizer": self.vocabulary.to_json(), "end": END}

    def metrics(self) -> Perplexity:
        return Perplexity("source", self.fit.target_tokens)


def _begun(tokens: Tensor) -> Tensor:
    """`tokens` moved by one position, with the start of a text before them."""
    return F.pad(tokens[:, :-1], (1, 0), value=BEGIN)


def _drawn(scores: Tensor, uniform: Tensor) -> Tensor:
    """For each row of scores, (batch, tokens), the token where the cumulative probability passes `uniform`."""
    cumulative = scores.double().softmax(1).cumsum(1)
    found = torch.searchsorted(cumulative, (uniform.double() * cumulative[:, -1])[:, None], right=True)
    return found[:, 0].clamp(max=scores.shape[1] - 1)
