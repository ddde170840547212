"""Post-norm transformer layers with positions added to queries and keys only, as in DETR."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_CACHED = 2**20  # weights of an attention that a processor's cache holds
_NUMBERS, _LEAST_INT64 = 2**16, -(2**63)


class Dropout(nn.Dropout):
    """`nn.Dropout` with random numbers that cost CPUs a tenth."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        if not self.training or not self.p or x.device.type != "cpu":
            return super().forward(x)
        kept, grown = _kept(x.shape, self.p)
        return x * kept.to(x.dtype).mul_(grown)


def _kept(shape: Sequence[int], share: float) -> tuple[torch.Tensor, float]:
    """Bool of a shape, False for a share of them, and what keeps the mean where they are dropped.

    Each is dropped where one of 2**16 equally likely numbers is small enough: four of them in one
    random number of 64 bits.
    """
    least = min(round(share * _NUMBERS), _NUMBERS - 1)
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(_LEAST_INT64, None)
    kept = bits.view(torch.int16)[:count] >= least - _NUMBERS // 2
    return kept.view(*shape), _NUMBERS / (_NUMBERS - least)


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
            Dropout(dropout),
            nn.Linear(hidden, width),
            Dropout(dropout),
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
        self.dropout = Dropout(dropout)
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
        if self.training and self.attention.dropout and queries.device.type == "cpu":
            attended = self._dropped(queries, keys, values)
        else:
            attended, _ = self.attention(queries, keys, values, need_weights=False)
        y: torch.Tensor = self.norm(x + self.dropout(attended))
        return y

    def _dropped(self, *inputs: torch.Tensor) -> torch.Tensor:
        """What `self.attention` gives with dropout; PyTorch's own would fill memory on CPUs."""
        attention = self.attention
        heads, (b, t, c) = attention.num_heads, inputs[0].shape
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        split = [
            F.linear(one, weight, bias).unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)
            for one, weight, bias in zip(inputs, weights, biases, strict=True)
        ]
        read: torch.Tensor = _DroppedAttention.apply(*split, attention.dropout)
        read = read.unflatten(0, (b, heads)).transpose(1, 2).reshape(b, t, c)
        y: torch.Tensor = attention.out_proj(read)
        return y


class _DroppedAttention(torch.autograd.Function):
    """Softmax attention (N, T, C), (N, M, C), (N, M, C) whose weights are dropped, for CPUs.

    A few of the N at a time, so that weights stay in the cache; of all that is kept for the way
    back only which were dropped.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, share: float
    ) -> torch.Tensor:
        (n, t, _), m = queries.shape, keys.shape[1]
        kept, grown = _kept((n, t, m), share)
        scale = queries.shape[-1] ** -0.5
        queries = queries * scale
        out = queries.new_empty((n, t, values.shape[-1]))
        for a in _few(n, t * m):
            weights = _weights(queries[a], keys[a]).mul_(kept[a])
            torch.bmm(weights, values[a], out=out[a])
        out *= grown
        ctx.save_for_backward(queries, keys, values, out, kept)
        ctx.scale, ctx.grown = scale, grown
        return out

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        queries, keys, values, out, kept = ctx.saved_tensors
        sums = (gradient * out).sum(-1, keepdim=True)
        gradient = gradient * ctx.grown
        of_queries, of_keys, of_values = map(torch.empty_like, (queries, keys, values))
        for a in _few(len(queries), kept.shape[1] * kept.shape[2]):
            weights = _weights(queries[a], keys[a])
            changes = torch.bmm(gradient[a], values[a].transpose(1, 2)).mul_(kept[a])
            changes.sub_(sums[a]).mul_(weights)
            dropped = weights.mul_(kept[a]).transpose(1, 2)
            torch.bmm(dropped, gradient[a], out=of_values[a])
            torch.bmm(changes, keys[a], out=of_queries[a])
            torch.bmm(changes.transpose(1, 2), queries[a], out=of_keys[a])
        return of_queries.mul_(ctx.scale), of_keys, of_values, None


def _weights(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return torch.bmm(queries, keys.transpose(1, 2)).softmax(-1)


def _few(count: int, size: int) -> Iterator[slice]:
    """Slices of so many, each of this size, as a cache holds."""
    step = max(1, _CACHED // max(size, 1))
    return (slice(k, k + step) for k in range(0, count, step))


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
