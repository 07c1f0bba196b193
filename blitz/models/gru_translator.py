"""A bidirectional GRU that reads, and a GRU with Luong attention that writes."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from blitz.models.loops import Carried, while_loop
from blitz.models.translator import PAD, State, Translator


def over_all(cell: nn.GRUCell, inputs: Tensor, hidden: Tensor) -> Tensor:
    """The cell's states over (batch, length, width), from `hidden` (batch, width) on.

    In one call; but that, like a `nn.GRU`, could only be exported for a single length.
    """
    weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    if not torch.compiler.is_exporting():
        states: Tensor = torch.gru(inputs, hidden[None], weights, True, 1, 0.0, cell.training, False, True)[0]
        return states

    def more(step: Tensor, hidden: Tensor, states: Tensor) -> Tensor:
        return (step < states.shape[1]).squeeze()

    def turn(step: Tensor, hidden: Tensor, states: Tensor) -> Carried:
        hidden = cell(inputs.index_select(1, step)[:, 0], hidden)
        return step + 1, hidden, states.index_copy(1, step, hidden[:, None])

    states = torch.zeros_like(inputs[:, :, :1]).repeat(1, 1, cell.hidden_size)
    step = torch.zeros(1, dtype=torch.int64, device=inputs.device)
    return while_loop(more, turn, (step, hidden, states))[2]


class BidirectionalGRU(nn.Module):
    """A GRU in either direction over rows that end with padding: the reverse one starts at each row's last token.

    Rows are turned around by an index instead of packed, so that the module can be exported.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ahead, self.back = nn.GRUCell(width, width // 2), nn.GRUCell(width, width // 2)

    def forward(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, length, width) and (batch,) → the same shape, and the last state of both, (batch, width)."""
        position = torch.arange(inputs.shape[1], device=inputs.device)[None, :]
        last = lengths[:, None] - 1
        turned = torch.where(position <= last, last - position, position)[:, :, None]
        begin = torch.zeros_like(inputs[:, 0, : self.ahead.hidden_size])
        ahead = over_all(self.ahead, inputs, begin)
        back = over_all(self.back, inputs.gather(1, turned.expand_as(inputs)), begin)
        # Not `take_along_dim`, which torch exports for a single shape.
        ends = [each.gather(1, last[:, :, None].expand_as(each[:, :1]))[:, 0] for each in (ahead, back)]
        return torch.cat([ahead, back.gather(1, turned.expand_as(back))], 2), torch.cat(ends, 1)


class LuongAttention(nn.Module):
    """Attention to the source by Luong, Pham & Manning 2015, scores `dot` and `general`, equation 8."""

    def __init__(self, width: int, score: Literal["dot", "general"]) -> None:
        super().__init__()
        self.score = nn.Identity() if score == "dot" else nn.Linear(width, width, bias=False)
        self.combine = nn.Linear(2 * width, width)

    def forward(self, states: Tensor, memory: Tensor, is_padding: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, length, width) → the same, and weights (batch, length, source length) that are 0 for padding."""
        scores = states @ self.score(memory).transpose(1, 2)
        weights = scores.masked_fill(is_padding[:, None, :], -torch.inf).softmax(2)
        return torch.tanh(self.combine(torch.cat([weights @ memory, states], 2))), weights


class GRUTranslator(Translator):
    """Encoder and decoder of `layers` GRUs of `width`; attention follows the decoder, and is not fed back into it.

    So the decoder runs over a whole target at once, unless it has to continue from its own predictions.
    """

    def __init__(
        self, *, vocabulary: int, width: int, layers: int, score: Literal["dot", "general"], dropout: float
    ) -> None:
        super().__init__(vocabulary=vocabulary, width=width, dropout=dropout)
        self.layers = layers
        self.encoder: Any = nn.ModuleList(BidirectionalGRU(width) for _ in range(layers))
        self.bridge = nn.Linear(width, layers * width)
        self.decoder: Any = nn.ModuleList(nn.GRUCell(width, width) for _ in range(layers))
        self.attention = LuongAttention(width, score)

    def features(self, source: Tensor, given: Tensor, forced: Tensor | None) -> Tensor:
        """See `Translator`."""
        (memory, is_padding), state = self.start(source, given.shape[1])
        if forced is None:
            states = self._embedded(given)
            for number, cell in enumerate(self.decoder):
                states = over_all(cell, self.dropout(states) if number else states, state[number])
            features: Tensor = self.attention(states, memory, is_padding)[0]
            return features
        token, found = given[:, 0], []
        for position in range(given.shape[1]):
            # The first token is BEGIN, always given.
            if position:
                token = torch.where(forced[:, position], given[:, position], token)
            state = self._next(token, state)
            features, _ = self.attention(state[-1][:, None], memory, is_padding)
            found.append(features)
            token = self.scores(features[:, 0]).argmax(1)
        return torch.cat(found, 1)

    def start(self, source: Tensor, length: int) -> tuple[State, State]:
        """See `Translator`."""
        is_padding = source == PAD
        lengths = (~is_padding).sum(1)
        memory = self._embedded(source)
        last = memory[:, 0]
        for layer in self.encoder:
            memory, last = layer(memory, lengths)
            memory = self.dropout(memory)
        states = torch.tanh(self.bridge(last)).split(self.width, 1)
        return [memory, is_padding], [each.contiguous() for each in states]

    def step(self, token: Tensor, position: Tensor, fixed: State, state: State) -> tuple[Tensor, Tensor, State]:
        """See `Translator`."""
        state = self._next(token, state)
        features, weights = self.attention(state[-1][:, None], fixed[0], fixed[1])
        return self.scores(features[:, 0]), weights[:, 0], state

    def _next(self, token: Tensor, state: State) -> State:
        """The state of each layer, (batch, width), after one more token (batch,)."""
        inputs = self._embedded(token)
        states: list[Tensor] = []
        for number, cell in enumerate(self.decoder):
            inputs = cell(self.dropout(inputs) if number else inputs, state[number])
            states.append(inputs)
        return states

    def _embedded(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.dropout(self.embedding(tokens) * self.width**0.5)
        return embedded
