"""Files that are whole at every moment."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """A file to write inside, which takes the place of `path` afterwards, at once.

    Whoever looks finds the old one or the new one, whole. Where something fails, the old one stays and there
    is nothing beside it; a process that is killed leaves a hidden draft there.

    Args:
        path: the file.
        alone: whether nobody else writes it now; drafts of processes that were killed are then removed.
    """
    if alone:
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.draft"):
            left.unlink(missing_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.draft")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # minus the umask, as files are
    try:
        yield draft
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def replace_text(path: Path, text: str) -> None:
    """Writes a `whole_file` of UTF-8, line ends as they are in `text`."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")
