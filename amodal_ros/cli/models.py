"""`amodal models`: what can be run."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from amodal_core.models.registry import available


def command() -> None:
    """List the models by name.

    [bold]Example[/]

      amodal replay build/drive --out build/out --model geometric
    """
    table = Table("model", "what it is", box=None, header_style="bold")
    for name, line in available().items():
        table.add_row(name, line)
    Console().print(table)
