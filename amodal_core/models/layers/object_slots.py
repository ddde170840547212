"""Slots that remember an object over time: they take in a frame's views and give back its look."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from amodal_core.models.layers.attention import DecoderLayer

Positions = Literal["sincos", "random"]


def sine_positions(count: int, channels: int) -> torch.Tensor:
    """(count, C) float32 positions in a row, sines and cosines by turns (Vaswani et al., 2017).

    Args:
        count: of positions.
        channels: an even number.
    """
    rates = 10000 ** (torch.arange(0, channels, 2, dtype=torch.float32) / channels)
    angles = torch.arange(count, dtype=torch.float32)[:, None] / rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


class _Decoder(nn.Module):
    """Layers that let queries look at a memory."""

    def __init__(self, width: int, layers: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, hidden, dropout) for _ in range(layers)
        )

    def forward(
        self,
        queries: torch.Tensor,
        position: torch.Tensor,
        memory: torch.Tensor,
        memory_position: torch.Tensor,
    ) -> torch.Tensor:
        for layer in self.layers:
            queries = layer(queries, position, memory, memory_position)
        return queries


class ObjectSlots(nn.Module):
    """Learned slots that go through the frames of an object, forward and backward.

    In each frame the slots look at the view from above, where there is one, then at the view from
    the front; the front view's tokens then look at the slots. Both directions share their weights
    and begin with the learned slots.

    Args:
        count: slots of an object.
        width: channels of slots and tokens.
        layers: of each decoder.
        heads: of attention.
        hidden: of the perceptrons.
        dropout: share.
        front: tokens of the front view.
        above: tokens of the view from above.
        positions: of slots and tokens, "sincos" over the place in their row, or "random": learned.
    """

    slot_position: torch.Tensor
    front_position: torch.Tensor
    above_position: torch.Tensor

    def __init__(
        self,
        count: int,
        width: int,
        *,
        layers: int,
        heads: int,
        hidden: int,
        dropout: float,
        front: int,
        above: int,
        positions: Positions = "sincos",
    ) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(count, width) * width**-0.5)
        self.from_above, self.from_front, self.to_front = (
            _Decoder(width, layers, heads, hidden, dropout) for _ in range(3)
        )
        for name, size in (("slot", count), ("front", front), ("above", above)):
            if positions == "sincos":
                places = sine_positions(size, width)
                self.register_buffer(f"{name}_position", places, persistent=False)
            else:
                places = torch.randn(size, width)
                self.register_parameter(f"{name}_position", nn.Parameter(places))

    def begin(self, count: int) -> torch.Tensor:
        """(N, S, C): the slots of objects that were never seen."""
        return self.slots.expand(count, -1, -1)

    def look(
        self, slots: torch.Tensor, front: torch.Tensor, above: torch.Tensor | None
    ) -> torch.Tensor:
        """Slots (N, S, C) after they have seen a frame's tokens (N, P, C) and (N, Q, C) or None."""
        own = self.slot_position
        if above is not None:
            slots = self.from_above(slots, own, above, self.above_position)
        updated: torch.Tensor = self.from_front(slots, own, front, self.front_position)
        return updated

    def read(self, front: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """(N, P, C): the front view's tokens with what the slots know."""
        tokens: torch.Tensor = self.to_front(front, self.front_position, slots, self.slot_position)
        return tokens

    def step(
        self, slots: torch.Tensor, front: torch.Tensor, above: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One frame of a stream, of which the future is not known.

        The backward half begins in this frame: this is what `forward` gives for the last frame of a
        clip.

        Args:
            slots: (N, S, C) after the frame before.
            front: (N, P, C).
            above: (N, Q, C) or None.

        Returns:
            The slots after this frame, and (N, P, 2 C) as `forward`.
        """
        n = len(slots)
        twice = None if above is None else torch.cat([above, above])
        both = torch.cat([front, front])
        updated = self.look(torch.cat([slots, self.begin(n)]), both, twice)
        tokens = self.read(both, updated)
        return updated[:n], torch.cat([tokens[:n], tokens[n:]], -1)

    def forward(
        self, front: torch.Tensor, above: torch.Tensor | None, present: torch.Tensor
    ) -> torch.Tensor:
        """A clip, forward and backward.

        Args:
            front: (N, T, P, C) tokens of each object and moment.
            above: (N, T, Q, C) or None.
            present: (N, T) bool; in other moments the slots stay as they are.

        Returns:
            (N, T, P, 2 C): what both directions know, the forward one first.
        """
        steps = range(front.shape[1])
        halves = []
        for order in (steps, reversed(steps)):
            slots, states = self.begin(len(front)), {}
            for t in order:
                new = self.look(slots, front[:, t], None if above is None else above[:, t])
                slots = torch.where(present[:, t, None, None], new, slots)
                states[t] = slots
            row = torch.stack([states[t] for t in steps], 1).flatten(0, 1)
            halves.append(self.read(front.flatten(0, 1), row).unflatten(0, front.shape[:2]))
        return torch.cat(halves, -1)


class MaskDecoder(nn.Module):
    """Tokens to a mask of eight times their resolution.

    Args:
        channels: of a token.
        side: tokens along each side.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        widths = (channels, channels // 2, channels // 4, 1)
        layers: list[nn.Module] = []
        for k in range(3):
            layers += [nn.ConvTranspose2d(widths[k], widths[k + 1], 3, 2, 1), nn.LeakyReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, side^2, C) to logits (N, S, S), S = 8 side - 7."""
        square = tokens.transpose(1, 2).unflatten(2, (self.side, self.side))
        logits: torch.Tensor = self.layers(square)[:, 0]
        return logits
