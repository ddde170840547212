"""`amodal models`: what can be run, and what can be set."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from amodal_core.models.registry import available, settings_of


def command(
    name: Annotated[str, typer.Argument(help="A model, to list its settings.")] = "",
) -> None:
    """List the models by name, or the settings of one: type, default, range and meaning.

    For example:

      amodal models geometric

      amodal replay build/drive --out build/out --model geometric --set min_score=0.4
    """
    if not name:
        table = Table("model", "what it is", box=None, header_style="bold")
        for model, line in available().items():
            table.add_row(model, line)
        Console().print(table)
        return
    from amodal_core.settings import described

    columns = ("setting", "type", "default", "range", "meaning")
    table = Table(*columns, box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for one in described(settings_of(name)):
        table.add_row(one.name, one.kind, one.default, one.limits, one.description)
    Console(markup=False).print(table)
