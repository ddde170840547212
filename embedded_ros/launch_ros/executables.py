"""The command that runs a package's executable."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path


def command_of(package: str, executable: str) -> list[str]:
    """How to run it: lib/<package>/ of an ament prefix, an entry point, or <package>.nodes.<name>.

    Raises:
        RuntimeError: the package has no such executable.
    """
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        place = Path(prefix) / "lib" / package / executable
        if place.is_file() and os.access(place, os.X_OK):
            return [str(place)]
    try:
        for entry in distribution(package).entry_points:
            if entry.group == "console_scripts" and entry.name == executable:
                module, _, function = entry.value.partition(":")
                code = f"import sys; from {module} import {function}; sys.exit({function}())"
                if function == "main":
                    return [sys.executable, "-m", module]
                return [sys.executable, "-c", code]
    except PackageNotFoundError:
        pass
    try:
        if find_spec(f"{package}.nodes.{executable}") is not None:
            return [sys.executable, "-m", f"{package}.nodes.{executable}"]
    except ModuleNotFoundError:
        pass
    raise RuntimeError(f"package '{package}' has no executable '{executable}'")
