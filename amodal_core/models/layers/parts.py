"""Parts of a network that may run in another runtime than torch, tensors in and tensors out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

Tensors = tuple[torch.Tensor, ...]


class InParts:
    """A module some of whose methods may run elsewhere.

    Attributes:
        elsewhere: what gives the same as a method, by the method's name; a copy of the module has
            None instead.
    """

    elsewhere: dict[str, Callable[..., Tensors] | None]

    def ran(self, method: str, *inputs: torch.Tensor) -> Tensors:
        """What a method gives, elsewhere if it may; for gradients never."""
        fast = self.elsewhere.get(method)
        if fast is None or torch.is_grad_enabled():
            result: Tensors = getattr(self, method)(*inputs)
            return result
        return fast(*inputs)


@dataclass(frozen=True)
class Part:
    """A method that may run elsewhere, and what its graph is made with.

    Attributes:
        name: of the part.
        owner: the module.
        method: of the owner.
        inputs: example tensors by the names that the method has for them, in its order.
        outputs: names.
        rows: inputs' rows at a time; 0 for images, of any height and width and one at a time.
    """

    name: str
    owner: InParts
    method: str
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]
    rows: int = 0

    def network(self) -> nn.Module:
        """A module whose `forward` is the method."""
        return _Call(self)


class _Call(nn.Module):
    def __init__(self, part: Part) -> None:
        super().__init__()
        self.owner, self.method = part.owner, part.method

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> Tensors:
        result: Tensors = getattr(self.owner, self.method)(*inputs, **named)
        return result
