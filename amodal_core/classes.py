"""Names of classes in one place as names in another: every mapping of classes goes through here."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amodal_core.errors import InputError

# What a user says of classes: name -> name elsewhere, None for a class to leave out.
Renames = Mapping[str, str | None]

# Groups of names for one thing, as narrow as the field's sets allow.
_SYNONYMS = (
    ("pedestrian", "person"),
    ("cyclist", "bike", "bicycle", "rider", "motor", "motorcycle", "motorcyclist", "biker"),
    ("tram", "train", "bus", "trolleybus"),
    ("car",),
    ("van", "caravan"),
    ("truck", "trailer", "lorry"),
    ("misc", "other", "dynamic"),
)


def scores_of_classes(
    scores: np.ndarray, class_ids: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    """(M, C) float64 scores of M objects for each class; their own keeps its score.

    Another class scores as much less as it is less probable.

    Args:
        scores: (M,) 0-1.
        class_ids: (M,) of their own classes.
        probabilities: (M, C).
    """
    own = np.take_along_axis(probabilities, class_ids[:, None], axis=1)
    return np.asarray(scores[:, None] * probabilities / np.maximum(own, 1e-9))


@dataclass(frozen=True)
class ClassMap:
    """Class ids of one list of names as ids of another.

    Attributes:
        sources: names that are mapped.
        targets: names that they are mapped to.
        table: (N,) int64, for each source the index of its target, -1 where it has none.
        missing: sources without a target, other than those that are to be left out.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    table: np.ndarray
    missing: tuple[str, ...] = ()

    @classmethod
    def between(
        cls, sources: Sequence[str], targets: Sequence[str], renames: Renames | None = None
    ) -> ClassMap:
        """Match names: by `renames`, then by the name itself, then by one for the same thing.

        Upper and lower case are the same.
        """
        index = {name.lower(): k for k, name in enumerate(targets)}
        table, missing = [], []
        for name in sources:
            wanted = renamed(name, renames or {})
            group: tuple[str, ...] = ()
            if wanted is not None:
                same = next((g for g in _SYNONYMS if wanted.lower() in g), ())
                group = (wanted.lower(), *same)
            table.append(next((index[n] for n in group if n in index), -1))
            if table[-1] < 0 and wanted is not None:
                missing.append(name)
        return cls(tuple(sources), tuple(targets), np.array(table, np.int64), tuple(missing))

    @classmethod
    def exact(cls, sources: Sequence[str], targets: Sequence[str]) -> ClassMap:
        """Match equal names alone."""
        table = [targets.index(name) if name in targets else -1 for name in sources]
        missing = tuple(name for name in sources if name not in targets)
        return cls(tuple(sources), tuple(targets), np.array(table, np.int64), missing)

    @classmethod
    def renaming(cls, sources: Sequence[str], renames: Mapping[str, str]) -> ClassMap:
        """New names; two sources that get one name become one class."""
        names = [renamed(name, renames) or name for name in sources]
        return cls.exact(names, tuple(dict.fromkeys(names)))

    def ids(self, class_ids: Any) -> np.ndarray:
        """(M,) ids of targets for (M,) ids of sources; -1 where there is none."""
        return self.table[np.asarray(class_ids, np.int64)]

    def probabilities(self, class_ids: Any, of_sources: Any) -> np.ndarray:
        """(M, T + 1) float64 of targets and, in the last column, of none of them.

        Args:
            class_ids: (M,) of sources.
            of_sources: (M, N) probabilities, None where each object has its class for sure.
        """
        sure = of_sources is None
        rows = np.eye(len(self.sources))[class_ids] if sure else np.asarray(of_sources)
        return np.asarray(rows @ np.eye(len(self.targets) + 1)[self.table])

    def complete(self) -> list[int]:
        """The table, where every class has to have a target of a format that is written.

        Raises:
            InputError: a class has none.
        """
        if self.missing:
            rule = shlex.quote(f"{self.missing[0]}={self.targets[0]}")
            raise InputError(
                f"no class of the format means {', '.join(self.missing)}",
                "--class",
                f"name each, such as --class {rule}; there are: {', '.join(self.targets)}",
            )
        return [int(k) for k in self.table]


def renamed(name: str, renames: Renames) -> str | None:
    """What a class is called after `renames`, whose keys may be in any case; None: left out."""
    return {k.lower(): v for k, v in renames.items()}.get(name.lower(), name)


def parse_renames(rules: Iterable[str], option: str) -> dict[str, str]:
    """Renames from a command line.

    Args:
        rules: "name=name elsewhere" each.
        option: that gave them, for the error.

    Raises:
        InputError: a rule that is none.
    """
    renames = {}
    for rule in rules:
        old, equals, new = rule.partition("=")
        if not equals or not old or not new:
            raise InputError(f"'{rule}' is not class=class", option, f"such as {option} van=car")
        renames[old] = new
    return renames


def check_renames(renames: Renames, names: Iterable[str], owner: str, where: str) -> None:
    """Make sure that every class that is renamed is one of an owner's, whatever its case.

    Args:
        renames: whose keys are checked.
        names: of the owner's classes.
        owner: such as "the data", for the error.
        where: who renamed, for the error.

    Raises:
        InputError: one is not.
    """
    existing = {name.lower(): name for name in names}
    for entry in renames:
        if entry.lower() not in existing:
            near = difflib.get_close_matches(entry.lower(), existing, 1)
            listed = f"there are: {', '.join(sorted(existing.values()))}"
            cure = f"did you mean {existing[near[0]]}?" if near else listed
            raise InputError(f"{owner} has no class {entry}", where, cure)
