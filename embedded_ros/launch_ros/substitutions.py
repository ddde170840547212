"""Where packages lie."""

from __future__ import annotations

from typing import Any

from launch import LaunchContext, SomeSubstitutionsType, Substitution

from ._missing import missing
from .parameter_descriptions import _text


class FindPackageShare(Substitution):
    """The share folder of a package."""

    def __init__(self, package: SomeSubstitutionsType) -> None:
        self.package = package

    def perform(self, context: LaunchContext) -> str:
        """The folder; PackageNotFoundError where there is no such package."""
        from ament_index_python.packages import get_package_share_directory

        return str(get_package_share_directory(_text(context, self.package)))


def __getattr__(name: str) -> Any:
    raise missing("launch_ros.substitutions", name)
