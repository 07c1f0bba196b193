"""A small Transformer that translates."""

from typing import Any

import torch
from torch import Tensor, nn

from blitz.models.translator import PAD, State, Translator


class Attention(nn.Module):
    """Scaled dot-product attention of several heads (Vaswani et al. 2017), written out: its weights are shown."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.queries, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.keys_values = nn.Linear(width, 2 * width)
        self.dropout = nn.Dropout(dropout)

    def of(self, inputs: Tensor) -> Tensor:
        """(batch, length, width) → its keys and values, (2, batch, heads, length, width / heads)."""
        batch, length, width = inputs.shape
        parts: Tensor = self.keys_values(inputs).reshape(batch, length, 2, self.heads, width // self.heads)
        return parts.permute(2, 0, 3, 1, 4)

    def forward(self, inputs: Tensor, keys_values: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, length, width) → the same, and weights (batch, heads, length, others); `hidden` ones are 0."""
        batch, length, width = inputs.shape
        queries = self.queries(inputs).reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)
        scores = queries @ keys_values[0].transpose(2, 3) * (width // self.heads) ** -0.5
        weights = scores.masked_fill(hidden, -torch.inf).softmax(3)
        found = (self.dropout(weights) @ keys_values[1]).transpose(1, 2).reshape(batch, length, width)
        return self.out(found), weights


class Feedforward(nn.Sequential):
    """Two linear layers, the one between them `2 · width` wide."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, width))


class EncoderLayer(nn.Module):
    """Self-attention, and a feedforward part; each is residual, with normalisation before."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention, self.feedforward = Attention(width, heads, dropout), Feedforward(width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor, is_padding: Tensor) -> Tensor:
        """(batch, length, width) → the same."""
        normed = self.norms[0](inputs)
        found, _ = self.attention(normed, self.attention.of(normed), is_padding)
        inputs = inputs + self.dropout(found)
        outputs: Tensor = inputs + self.dropout(self.feedforward(self.norms[1](inputs)))
        return outputs


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source, and a feedforward part."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.written, self.source = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.feedforward, self.dropout = Feedforward(width, dropout), nn.Dropout(dropout)

    def of(self, inputs: Tensor) -> Tensor:
        """Keys and values of the tokens so far, for those that follow."""
        keys_values: Tensor = self.written.of(self.norms[0](inputs))
        return keys_values

    def forward(
        self, inputs: Tensor, written: Tensor, is_later: Tensor, source: Tensor, is_padding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(batch, length, width) → the same, and the weights of the source, (batch, heads, length, source length)."""
        found, _ = self.written(self.norms[0](inputs), written, is_later)
        inputs = inputs + self.dropout(found)
        found, weights = self.source(self.norms[1](inputs), source, is_padding)
        inputs = inputs + self.dropout(found)
        return inputs + self.dropout(self.feedforward(self.norms[2](inputs))), weights


class TransformerTranslator(Translator):
    """Encoder and decoder of `layers` layers, sines and cosines for positions; a search keeps keys and values."""

    def __init__(self, *, vocabulary: int, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__(vocabulary=vocabulary, width=width, dropout=dropout)
        self.encoder: Any = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(layers))
        self.decoder: Any = nn.ModuleList(DecoderLayer(width, heads, dropout) for _ in range(layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def features(self, source: Tensor, given: Tensor, forced: Tensor | None) -> Tensor:
        """See `Translator`; `forced` has no effect, since all positions are computed at once."""
        memory, is_padding = self._read(source)
        position = torch.arange(given.shape[1], device=given.device)
        is_later = position[None, :] > position[:, None]
        inputs = self._embedded(given, position)
        for layer in self.decoder:
            inputs, _ = layer(inputs, layer.of(inputs), is_later, layer.source.of(memory), is_padding)
        features: Tensor = self.decoder_norm(inputs)
        return features

    def start(self, source: Tensor, length: int) -> tuple[State, State]:
        """See `Translator`: fixed are keys and values of the source, the state are those of the tokens so far."""
        memory, is_padding = self._read(source)
        of_source = torch.stack([layer.source.of(memory) for layer in self.decoder])
        written = torch.zeros_like(of_source[..., :1, :]).repeat(1, 1, 1, 1, length, 1)
        return [of_source, is_padding], [written]

    def step(self, token: Tensor, position: Tensor, fixed: State, state: State) -> tuple[Tensor, Tensor, State]:
        """See `Translator`; attention is that of the last layer, the mean of its heads."""
        inputs = self._embedded(token[:, None], position)
        written = state[0]
        is_later = torch.arange(written.shape[4], device=token.device)[None, :] > position[:, None]
        layers, weights = [], torch.zeros_like(written[0, 0, :, :, :1, :1])
        for number, layer in enumerate(self.decoder):
            layers.append(written[number].index_copy(3, position, layer.of(inputs)))
            inputs, weights = layer(inputs, layers[-1], is_later, fixed[0][number], fixed[1])
        return self.scores(self.decoder_norm(inputs)[:, 0]), weights.mean(1)[:, 0], [torch.stack(layers)]

    def _read(self, source: Tensor) -> tuple[Tensor, Tensor]:
        is_padding = (source == PAD)[:, None, None, :]
        inputs = self._embedded(source, torch.arange(source.shape[1], device=source.device))
        for layer in self.encoder:
            inputs = layer(inputs, is_padding)
        return self.encoder_norm(inputs), is_padding

    def _embedded(self, tokens: Tensor, position: Tensor) -> Tensor:
        """(batch, length) → (batch, length, width), with the positions, (length,), of its columns."""
        powers = torch.arange(self.width // 2, device=tokens.device) * (-2 / self.width)
        angles = position[:, None] * 10000.0**powers
        embedded: Tensor = self.embedding(tokens) * self.width**0.5 + torch.cat([angles.sin(), angles.cos()], 1)
        dropped: Tensor = self.dropout(embedded)
        return dropped
