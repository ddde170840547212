"""Where launch descriptions come from."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from .core import LaunchContext, LaunchDescription, SomeSubstitutionsType, missing, perform


class LaunchDescriptionSource:
    """A launch description that is already there.

    Args:
        launch_description: the description.
    """

    def __init__(self, launch_description: LaunchDescription | None = None) -> None:
        self.launch_description = launch_description

    def load(self, context: LaunchContext) -> tuple[LaunchDescription, Path | None]:
        """The description, and the file that it came from."""
        if self.launch_description is None:
            raise RuntimeError("a launch description source without a description")
        return self.launch_description, None


class PythonLaunchDescriptionSource(LaunchDescriptionSource):
    """A Python file with `generate_launch_description()`.

    Args:
        launch_file_path: the file.
    """

    def __init__(self, launch_file_path: SomeSubstitutionsType) -> None:
        super().__init__()
        self.path = launch_file_path

    def load(self, context: LaunchContext) -> tuple[LaunchDescription, Path | None]:
        """Run the file; FileNotFoundError where there is none."""
        path = Path(perform(context, self.path)).resolve()
        if not path.is_file():
            raise FileNotFoundError(f"there is no launch file {path}")
        spec = spec_from_file_location(f"launch_file_{path.name.split('.')[0]}", path)
        if spec is None or spec.loader is None:
            raise RuntimeError(f"{path} is not a Python launch file")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, "generate_launch_description"):
            raise RuntimeError(f"{path} has no generate_launch_description()")
        return module.generate_launch_description(), path


def __getattr__(name: str) -> Any:
    raise missing(f"launch.launch_description_sources.{name}", name)
