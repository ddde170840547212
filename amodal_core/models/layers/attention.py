"""Post-norm transformer layers with positions added to queries and keys only, as in DETR."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


class FeedForward(nn.Module):
    """Residual two-layer perceptron with a norm after it.

    Args:
        width: channels.
        hidden: of the perceptron.
        dropout: share.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, C) to (B, T, C)."""
        y: torch.Tensor = self.norm(x + self.layers(x))
        return y


class Attention(nn.Module):
    """Residual multi-head attention with a norm after it.

    Args:
        width: channels.
        heads: number of heads.
        dropout: share, of attention weights and of the result.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: torch.Tensor,
        x_position: torch.Tensor,
        memory: torch.Tensor | None = None,
        memory_position: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, T, C) attends to itself, or to a memory of (B, M, C)."""
        queries = x + x_position
        if memory is None:
            keys, values = queries, x
        else:
            keys = memory if memory_position is None else memory + memory_position
            values = memory
        attended, _ = self.attention(queries, keys, values, need_weights=False)
        y: torch.Tensor = self.norm(x + self.dropout(attended))
        return y


class EncoderLayer(nn.Module):
    """Self attention and a perceptron."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.feed_forward = FeedForward(width, hidden, dropout)

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """(B, T, C) tokens with positions that broadcast to them."""
        y: torch.Tensor = self.feed_forward(self.self_attention(x, position))
        return y


class DecoderLayer(nn.Module):
    """Queries attend to each other, then to a memory, then a perceptron."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.cross_attention = Attention(width, heads, dropout)
        self.feed_forward = FeedForward(width, hidden, dropout)

    def forward(
        self,
        queries: torch.Tensor,
        query_position: torch.Tensor,
        memory: torch.Tensor,
        memory_position: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, Q, C) queries over a (B, M, C) memory."""
        queries = self.self_attention(queries, query_position)
        queries = self.cross_attention(queries, query_position, memory, memory_position)
        y: torch.Tensor = self.feed_forward(queries)
        return y


class LearnedPosition2d(nn.Module):
    """Learned row and column tables, column channels first (DETR's learned variant).

    Args:
        width: channels of a position.
        longest: rows and columns at most.
    """

    def __init__(self, width: int, longest: int = 50) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.rand(longest, width // 2))
        self.columns = nn.Parameter(torch.rand(longest, width // 2))

    def forward(self, height: int, width: int) -> torch.Tensor:
        """(1, height * width, C), row by row."""
        columns = self.columns[:width].expand(height, -1, -1)
        rows = self.rows[:height, None].expand(-1, width, -1)
        return torch.cat([columns, rows], dim=-1).flatten(0, 1)[None]


def perceptron(widths: list[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, none at the end."""
    layers: list[nn.Module] = []
    for one, two in pairwise(widths):
        layers += [nn.Linear(one, two), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])
