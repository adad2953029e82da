"""Files that are whole at every moment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write inside, which takes the place of `path` afterwards, at once.

    Whoever looks finds the old one or the new one, whole. Where something fails, the old one stays and there
    is nothing beside it.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)  # mkstemp makes files that nobody else can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def replace_text(path: Path, text: str) -> None:
    """Writes a `whole_file` of UTF-8, line ends as they are in `text`."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")
