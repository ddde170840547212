"""Where packages keep their files: an ament prefix, this environment, or a checkout."""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

_MARKER = "share/ament_index/resource_index/packages"


class PackageNotFoundError(KeyError):
    """No prefix holds the package."""


def _search_paths() -> list[str]:
    """Prefixes that may hold packages, the nearest first."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [p for p in [*prefixes, sys.prefix] if p and Path(p).is_dir()]


def get_package_prefix(package_name: str) -> str:
    """The prefix that a package is installed to.

    Raises:
        PackageNotFoundError: there is none.
    """
    for prefix in _search_paths():
        if Path(prefix, _MARKER, package_name).exists():
            return prefix
        if Path(prefix, "share", package_name, "package.xml").exists():
            return prefix
    raise PackageNotFoundError(f"package '{package_name}' not found, searching: {_search_paths()}")


def get_package_share_directory(package_name: str) -> str:
    """The folder of a package's launch files, configuration and so on.

    A checkout on the Python path whose package.xml has this name counts too.

    Raises:
        PackageNotFoundError: there is none.
    """
    for entry in [Path(p or ".") for p in sys.path]:
        manifest = entry / "package.xml"
        if manifest.is_file():
            name = ElementTree.parse(manifest).findtext("name", "").strip()
            if name == package_name:
                return str(entry.resolve())
    return str(Path(get_package_prefix(package_name), "share", package_name))
