"""Where launch descriptions come from."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from .core import LaunchContext, LaunchDescription, SomeSubstitutionsType, perform


class PythonLaunchDescriptionSource:
    """A Python file with `generate_launch_description()`."""

    def __init__(self, launch_file_path: SomeSubstitutionsType) -> None:
        self.path = launch_file_path

    def load(self, context: LaunchContext) -> LaunchDescription:
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
        description: LaunchDescription = module.generate_launch_description()
        return description
