"""Archives in the newc format are read by an independent reader, and by cpio(1) if it is installed."""

import os
import shutil
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.machines.qemu import cpio

NAME = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=12
)
PATH = st.lists(NAME.filter(lambda name: name not in {".", "..", "TRAILER!!!"}), min_size=1, max_size=4).map("/".join)


def read(data):
    """Return the entries of an archive, read as init/initramfs.c does: header, name, padding, content, padding."""
    found, at = {}, 0
    while True:
        assert at % 4 == 0
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, links, mtime, size, name_size = fields[1], fields[4], fields[5], fields[6], fields[11]
        at += 110
        name = data[at : at + name_size]
        assert name.endswith(b"\0")
        at = (at + name_size + 3) & ~3
        content = data[at : at + size]
        assert len(content) == size
        at = (at + size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert at == len(data)
            return found
        assert mtime == 0
        assert links == (2 if stat.S_ISDIR(mode) else 1)
        assert name not in found
        parent = name[:-1].rpartition(b"/")[0]
        assert not parent or parent + b"\0" in found, "a folder must come before its entries"
        found[name] = (mode, content, tuple(fields[9:11]))


@given(st.dictionaries(PATH, st.binary(max_size=100), max_size=8))
def test_packed_files_are_read_back(files):
    # A path cannot be a file and a folder at once.
    files = {path: data for path, data in files.items() if not any(other.startswith(path + "/") for other in files)}
    found = read(cpio.pack({path: cpio.file(data) for path, data in files.items()}))
    regular = {name: data for name, (mode, data, _) in found.items() if stat.S_ISREG(mode)}
    assert regular == {path.encode() + b"\0": data for path, data in files.items()}


def test_every_kind_of_entry_is_packed():
    found = read(
        cpio.pack(
            {
                "init": cpio.file(b"#!", executable=True),
                "a/b/c": cpio.file(b"xyz"),
                "lib": cpio.symlink("usr/lib"),
                "dev/console": cpio.console(),
            }
        )
    )
    assert found[b"init\0"][:2] == (stat.S_IFREG | 0o755, b"#!")
    assert found[b"a/b\0"][0] == stat.S_IFDIR | 0o755
    assert found[b"lib\0"][:2] == (stat.S_IFLNK | 0o777, b"usr/lib")
    assert found[b"dev/console\0"][0] == stat.S_IFCHR | 0o600
    assert found[b"dev/console\0"][2] == (5, 1)


def test_the_order_of_the_entries_does_not_change_the_archive():
    entries = {"a": cpio.file(b"1"), "b/c": cpio.file(b"2")}
    assert cpio.pack(entries) == cpio.pack(dict(reversed(entries.items())))


@pytest.mark.parametrize("name", ["/init", "../init", "a/../../b", "a\0b", "", "TRAILER!!!"])
def test_a_path_outside_the_archive_is_refused(name):
    with pytest.raises(ValueError, match="not a path inside"):
        cpio.pack({name: cpio.file(b"")})


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_extracts_the_archive(tmp_path):
    content = os.urandom(5000)
    archive = cpio.pack({"a/b": cpio.file(content), "a/c": cpio.symlink("b"), "d": cpio.file(b"", executable=True)})
    subprocess.run(["cpio", "-idm", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "a/c").read_bytes() == content
    assert os.access(tmp_path / "d", os.X_OK)
