"""Where the room `training` is: of that name in a checkout, `amodal_training` where pip put it.

Installed, a package of a name as common as `training` could be somebody else's.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from amodal_core.extras import extra

INSTALLED = "amodal_training"


def package() -> str:
    """The name under which the room is imported here."""
    checkout = Path(__file__).resolve().parents[2]
    ours = checkout / "training" / "__init__.py"
    if not (checkout / "setup.py").is_file():
        return INSTALLED
    spec = find_spec("training")
    same = spec is not None and spec.origin is not None and Path(spec.origin).resolve() == ours
    return "training" if same else INSTALLED


def module(name: str) -> Any:
    """A module of the room, such as "train".

    Raises:
        InputError: what training needs is not installed.
    """
    with extra("train", "training"):
        return import_module(f"{package()}.{name}")
