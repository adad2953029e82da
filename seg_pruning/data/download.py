"""Fetch an archive, check it, unpack it: all or nothing."""

import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import URLError
from urllib.request import Request, urlopen

from rich.progress import Progress

from seg_pruning.data.errors import refuse

CHUNK = 1 << 20


def download_archive(url: str, folder: Path, *, sha256: str | None = None) -> str:
    """Stream the zip archive at `url` and unpack it as `folder`, which appears complete or not at all.

    Args:
        url: Where the archive is.
        folder: Must not exist yet.
        sha256: The hexadecimal digest that the archive must have; `None` accepts any.

    Returns:
        The archive's digest.

    Raises:
        FileExistsError: `folder` is there already.
        ValueError: The archive cannot be had, has another digest, is no zip archive, or holds unsafe paths.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists. Remove it to download {url} again.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as scratch:
        archive, unpacked = Path(scratch, "archive"), Path(scratch, "unpacked")
        digest = _fetch(url, archive)
        if sha256 is not None and digest != sha256.lower():
            raise ValueError(
                f"{url} has the SHA-256 digest {digest}, but {sha256} was expected: it was damaged or "
                "changed. Try again; if it is the same again, find out why before you trust it."
            )
        _unpack(archive, unpacked, url)
        unpacked.replace(folder)
    return digest


def _fetch(url: str, target: Path) -> str:
    """Write what is at `url` and give its digest."""
    digest = hashlib.sha256()
    try:
        with urlopen(Request(url, headers={"User-Agent": "seg-pruning"}), timeout=60) as source:
            size = source.headers.get("Content-Length")
            with target.open("wb") as file, Progress(transient=True) as progress:
                task = progress.add_task(f"Downloading {url}", total=int(size) if size else None)
                for chunk in iter(lambda: source.read(CHUNK), b""):
                    file.write(chunk)
                    digest.update(chunk)
                    progress.advance(task, len(chunk))
    except (URLError, OSError) as error:
        raise ValueError(
            f"{url} could not be downloaded: {error}. Try again, or download it by hand."
        ) from error
    if size and target.stat().st_size != int(size):
        raise ValueError(f"{url} broke off after {target.stat().st_size} of {size} bytes. Try again.")
    return digest.hexdigest()


def _unpack(archive: Path, folder: Path, url: str) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
            refuse(
                f"paths in {url} lead out of the archive or are links",
                [member.filename for member in members if not _is_safe(member)],
                "Nothing was unpacked: do not trust this archive.",
            )
            for member in members:
                with file.open(member) as source:
                    _write(source, folder / member.filename)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{url} is no zip archive ({error}). Check the address.") from error


def _is_safe(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a plain file below the archive's root."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
    return not (path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or is_link)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file)
