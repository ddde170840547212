"""Progress bars and messages of the command line, on stderr so that stdout stays for results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

stderr = Console(stderr=True, highlight=False)


class _Counted(MofNCompleteColumn):
    """Nothing, as long as nobody knows of how many."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


@contextmanager
def bar(
    title: str, unit: str = "frames", first: str = "preparing"
) -> Iterator[Callable[[int, int], None]]:
    """A bar that is moved by calls with (done, in all); until then it says what comes first."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Counted(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as progress:
        task = progress.add_task(first, total=None, unit="")

        def move(done: int, total: int) -> None:
            progress.update(task, description=title, completed=done, total=total, unit=unit)

        yield move


def warn(warnings: Iterable[object]) -> None:
    """Print warnings (texts, FrameWarnings, or a Counter of them), each once, with how often.

    FrameWarnings that tell what was decided (`NOTES`) are notes.
    """
    from amodal_core.frame import NOTES  # brings NumPy, which `amodal --help` need not wait for

    counts: Counter[object] = Counter(warnings)
    for line, count in counts.items():
        if getattr(line, "kind", "") in NOTES:
            note([line])
            continue
        times = f" ({count} times)" if count > 1 else ""
        stderr.print(f"[yellow bold]warning[/] {escape(str(line))}{times}", soft_wrap=True)


def note(lines: Iterable[object]) -> None:
    """Print what was decided or left out, a line each."""
    for line in lines:
        stderr.print(f"[dim]note[/] {escape(str(line))}", soft_wrap=True)
