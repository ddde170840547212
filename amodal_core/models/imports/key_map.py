"""The table type of key maps: what tensors are called elsewhere, and what they are here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from amodal_core.errors import InputError
from amodal_core.models.imports.files import WeightFile
from amodal_core.models.layers.weights import COUNTER

Tensors = dict[str, torch.Tensor]


@dataclass
class Source:
    """A file on its way to becoming a checkpoint.

    Attributes:
        file: what was read.
        style: "caffe" or "pytorch" of a ResNet, "" for the family's usual one.
        classes: names of the classes that the checkpoint is to have.
        rows: for each of these its place among the file's classes; None where the file does not
            have them all, so that what depends on classes stays out.
        beside: the files that were given beside the first one.
        settings: that the user gives the model.
    """

    file: WeightFile
    style: str = ""
    classes: tuple[str, ...] = ()
    rows: list[int] | None = None
    beside: list[WeightFile] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)


# None: the tensor stays out.
Change = Callable[[torch.Tensor, Source], torch.Tensor | None]


@dataclass(frozen=True)
class Rule:
    r"""What tensors of one pattern become.

    Attributes:
        pattern: regular expression of their whole names; begin it with the fixed part.
        names: their names here, with groups (`\1`); none for tensors that are not needed.
        change: what is done to each of them.
    """

    pattern: str
    names: tuple[str, ...] = ()
    change: Change | None = None


def renamed(pattern: str, *names: str, change: Change | None = None) -> Rule:
    r"""A rule for names that begin with `pattern`; what follows is kept.

    Args:
        pattern: regular expression of the beginning.
        *names: what it becomes, with groups (`\1`).
        change: what is done to each tensor.
    """
    groups = re.compile(pattern).groups
    return Rule(f"{pattern}(.*)", tuple(rf"{name}\{groups + 1}" for name in names), change)


def renamed_by(
    rules: Sequence[Rule], tensors: Tensors, source: Source
) -> tuple[Tensors, list[str]]:
    """Tensors under the names that rules give them, and the names of those that no rule knows."""
    compiled = [(re.compile(r.pattern), r) for r in rules]
    result: Tensors = {}
    unknown = []
    for name, tensor in tensors.items():
        if name.endswith(COUNTER):
            continue
        match, rule = next(((m, r) for p, r in compiled if (m := p.fullmatch(name))), (None, None))
        if match is None or rule is None:
            unknown.append(name)
            continue
        changed = rule.change(tensor, source) if rule.names and rule.change else tensor
        if changed is not None:
            result |= {match.expand(new): changed for new in rule.names}
    return result, unknown


def _as_is(tensors: Tensors, source: Source) -> Tensors:
    return tensors


@dataclass(frozen=True)
class KeyMap:
    """How one kind of file becomes one model.

    Attributes:
        model: name in the registry.
        rules: for a source; the first that fits a name holds.
        settings: of the model, from its tensors under our names and from the source.
        finish: what remains to be done when all names are ours, of several tensors together.
    """

    model: str
    rules: Callable[[Source], Sequence[Rule]]
    settings: Callable[[Tensors, Source], dict[str, Any]] = lambda tensors, source: {}
    finish: Callable[[Tensors, Source], Tensors] = _as_is

    def apply(self, source: Source) -> tuple[Tensors, list[str]]:
        """Tensors under our names, and the names of those that no rule knows."""
        result, unknown = renamed_by(self.rules(source), source.file.tensors, source)
        return self.finish(result, source), unknown


@dataclass(frozen=True)
class Layout:
    """A kind of file: whose it is, how it is known, and what it may become.

    Attributes:
        title: whose weights, for people.
        marks: patterns; a file is of this kind if each fits one of its names.
        maps: to our models; the first is what such a file is in the first place.
        classes: names of the file's classes in its order, or how many it has where nobody knows.
        style: of the file's ResNet, "caffe" or "pytorch", "" where it does not say.
        cure: what to do with a file that may become nothing here.
    """

    title: str
    marks: tuple[str, ...]
    maps: tuple[KeyMap, ...]
    classes: Callable[[WeightFile], Sequence[str] | int] = lambda file: ()
    style: Callable[[WeightFile], str] = lambda file: ""
    cure: str = "no model here is built so"

    def fits(self, names: Sequence[str]) -> bool:
        """Whether a file with these names is of this kind."""
        return all(_any(mark, names) for mark in self.marks)

    @property
    def models(self) -> list[str]:
        """What it may become."""
        return [m.model for m in self.maps]

    def map_to(self, model: str, where: str) -> KeyMap:
        """The map to a model.

        Raises:
            InputError: such a file is no weights of that model.
        """
        for one in self.maps:
            if one.model == model:
                return one
        raise InputError(
            f"these are weights of {self.title}, which '{model}' cannot take",
            where,
            f"--model {' or '.join(self.models)}" if self.maps else self.cure,
        )


def _any(pattern: str, names: Sequence[str]) -> bool:
    compiled = re.compile(pattern)
    return any(compiled.fullmatch(name) for name in names)


def group(tensors: Mapping[str, torch.Tensor], pattern: str) -> Tensors:
    """The tensors whose names begin with a pattern, without that beginning."""
    compiled = re.compile(pattern)
    return {n[m.end() :]: t for n, t in tensors.items() if (m := compiled.match(n))}
