"""A bar on the terminal for what takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(description: str, *, console: Console | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar whose callback takes the steps done and the steps in all; it leaves no line behind.

    Example:
        >>> with progress_bar("latency", console=Console(quiet=True)) as progress:
        ...     progress(1, 2)
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
