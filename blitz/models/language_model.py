"""A decoder-only Transformer: RMSNorm, rotary positions, SwiGLU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BASE = 10000.0
_INIT_STD = 0.02


class Attention(nn.Module):
    """Causal attention of several heads, by `F.scaled_dot_product_attention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values, self.out = (
            nn.Linear(width, 3 * width, bias=False),
            nn.Linear(width, width, bias=False),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, length, width) → the same."""
        batch, length, width = inputs.shape
        parts = self.queries_keys_values(inputs).reshape(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(rotated(queries), rotated(keys), values, is_causal=True)
        outputs: Tensor = self.out(found.transpose(1, 2).reshape(batch, length, width))
        return outputs


def rotated(vectors: Tensor) -> Tensor:
    """(batch, heads, length, even width) → the same, each vector rotated by its position (RoPE, Su et al. 2021)."""
    length, half = vectors.shape[2], vectors.shape[3] // 2
    # In bf16 positions above 256 would be rounded.
    dtype = torch.promote_types(vectors.dtype, torch.float32)
    powers = torch.arange(half, device=vectors.device, dtype=dtype) / half
    angles = torch.arange(length, device=vectors.device, dtype=dtype)[:, None] * _BASE**-powers
    cos, sin = angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)
    first, second = vectors[..., :half], vectors[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Feedforward(nn.Module):
    """SwiGLU (Shazeer 2020), 8/3 of the width wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = -(-width * 8 // 3 // 8) * 8
        self.gate_up, self.out = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, width) → the same."""
        gate, up = self.gate_up(inputs).chunk(2, -1)
        outputs: Tensor = self.out(F.silu(gate) * up)
        return outputs


class DecoderBlock(nn.Module):
    """Attention and a feedforward part; each is residual, with normalisation before."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(width), Attention(width, heads)
        self.feedforward_norm, self.feedforward = nn.RMSNorm(width), Feedforward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, length, width) → the same."""
        inputs = inputs + self.dropout(self.attention(self.attention_norm(inputs)))
        outputs: Tensor = inputs + self.dropout(self.feedforward(self.feedforward_norm(inputs)))
        return outputs


class LanguageModel(nn.Module):
    """Scores of the next token at every position: (batch, length) → (batch, length, vocabulary)."""

    def __init__(self, *, vocabulary: int, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(DecoderBlock(width, heads, dropout) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # What is added to the residual stream is smaller the more layers add to it (GPT-2).
                depth = 2 * layers if name.endswith("out.weight") else 1
                nn.init.normal_(parameter, std=_INIT_STD * depth**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, length) → (batch, length, vocabulary)."""
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        scores: Tensor = self.head(self.norm(hidden))
        return scores
