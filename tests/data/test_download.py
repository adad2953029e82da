import hashlib
import io
import zipfile

import pytest

from seg_pruning.data.download import download_archive

FILES = {"set/images/a.txt": b"image" * 1000, "set/masks/a.txt": b"mask"}


def make_archive(files, links=()):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for name in links:
            link = zipfile.ZipInfo(name)
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
    return content.getvalue()


def test_an_archive_is_unpacked_whole(tmp_path, serve):
    content = make_archive(FILES)
    digest = hashlib.sha256(content).hexdigest()
    target = tmp_path / "deep" / "data"
    assert download_archive(serve(content), target, sha256=digest.upper()) == digest
    found = {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert found == FILES
    assert [path.name for path in target.parent.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("content", "arguments", "missing", "said"),
    [
        (make_archive(FILES), {"sha256": "0" * 64}, 0, "has the SHA-256 digest .* but 0000"),
        (make_archive(FILES), {}, 10, "broke off after"),
        (b"<html>no archive</html>", {}, 0, "is no zip archive"),
        (make_archive(FILES)[:-40], {}, 0, "is no zip archive"),
        (make_archive(FILES | {"../evil.txt": b""}), {}, 0, r"1 paths .*: \.\./evil\.txt"),
        (make_archive(FILES | {"set/../../evil.txt": b""}), {}, 0, "lead out of the archive"),
        (make_archive(FILES | {"/evil.txt": b""}), {}, 0, "lead out of the archive"),
        (make_archive(FILES, links=["set/link"]), {}, 0, "1 paths .* are links: set/link"),
    ],
    ids=["digest", "short", "no zip", "cut zip", "parent", "inner parent", "absolute", "link"],
)
def test_a_bad_archive_leaves_nothing(tmp_path, serve, content, arguments, missing, said):
    with pytest.raises(ValueError, match=said):
        download_archive(serve(content, missing), tmp_path / "data", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_address_without_an_archive_is_refused(tmp_path, serve):
    with pytest.raises(ValueError, match="could not be downloaded: HTTP Error 404"):
        download_archive(serve(b"") + "x", tmp_path / "data")


def test_what_is_there_is_never_overwritten(tmp_path):
    with pytest.raises(FileExistsError, match="Remove it to download"):
        download_archive("http://127.0.0.1:1/set.zip", tmp_path)
