"""Kernels are exported to one file and imported from it; a file that was changed imports nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from uffdlab import errors
from uffdlab.kernels import bundle, host_checks
from uffdlab.kernels.cache import Cache
from uffdlab.kernels.catalogue import Catalogue, load
from uffdlab.kernels.images import RECORD
from uffdlab.kernels.progress import Silent
from uffdlab.kernels.supply import Supply

NAMES = ("tiny-base", "packaged/here")


@pytest.fixture
def exported(lab, tmp_path):
    path = tmp_path / "stick" / "kernels"
    path.parent.mkdir()
    found = [lab.supply().finished(name, progress=Silent()) for name in NAMES]
    assert bundle.write(path, found, Silent()) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(path.parent.iterdir()) == [path]
    return path


@pytest.fixture
def other(lab, tmp_path):
    """Return what another host has: the same catalogue, an empty cache, and an archive that serves nothing."""

    def make() -> Supply:
        lab.archive.versions.clear()
        return Supply(load(lab.toml), Cache(tmp_path / "other"), lab.archive)

    return make


def take(path, lab, tmp_path, sha256=""):
    return bundle.read(path, Cache(tmp_path / "other"), load(lab.toml), Silent(), sha256)


def content_of(path):
    """Return the list of kernels, and each member with its content."""
    data = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    return json.loads(members[0][1]), members[1:]


def write(path, listed, members, *, tail=b""):
    """Write such a file, with any list and any members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        text = listed if isinstance(listed, bytes) else json.dumps(listed).encode()
        head = tarfile.TarInfo("kernels.json")
        head.size = len(text)
        for member, content in [(head, text), *members]:
            tar.addfile(member, io.BytesIO(content))
    path.write_bytes(zstandard.compress(out.getvalue() + tail))


def refused(path, lab, tmp_path, reason):
    with pytest.raises(errors.UffdlabError, match=reason):
        take(path, lab, tmp_path)
    assert not list((tmp_path / "other").glob("images/*"))
    assert sorted(each.name for each in tmp_path.glob("other/*")) in ([], ["locks"])


def test_an_imported_kernel_needs_neither_network_nor_apt_nor_compiler(lab, exported, other, tmp_path, monkeypatch):
    mine = [lab.supply().find(name) for name in NAMES]
    kernels = take(exported, lab, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    supply = other()
    assert [supply.get(name) for name in NAMES] == kernels
    for kernel, original in zip(kernels, mine, strict=True):
        assert replace(kernel, image=original.image, config=original.config, log=original.log) == original
        for path in original.image.parent.rglob("*"):
            if path.is_file() and path.name != RECORD:
                copy = kernel.image.parent / path.relative_to(original.image.parent)
                assert copy.read_bytes() == path.read_bytes()
    assert [(row.name, row.origin) for row in supply.available() if row.kernel] == [
        (name, "imported") for name in NAMES
    ]
    assert supply.remove("tiny-base") > 0
    assert supply.find("tiny-base") is None


def test_a_kernel_of_another_compiler_is_used_and_an_own_build_after_it(lab, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(host_checks, "toolchain", lambda: "another")
    (kernel,) = [each for each in take(exported, lab, tmp_path) if each.name == "tiny-base"]
    supply = Supply(load(lab.toml), Cache(tmp_path / "other"), lab.archive)
    assert supply.find("tiny-base") == kernel
    built = supply.get("tiny-base", progress=Silent(), refresh=True)
    assert built.key != kernel.key
    assert supply.find("tiny-base") == built
    take(exported, lab, tmp_path)
    assert supply.find("tiny-base") == kernel


def test_a_kernel_that_the_catalogue_does_not_have_is_used_and_removed(lab, exported, tmp_path):
    cache = Cache(tmp_path / "other")
    kernels = bundle.read(exported, cache, Catalogue({}), Silent())
    supply = Supply(Catalogue({}), cache, lab.archive)
    assert [supply.get(name) for name in NAMES] == kernels
    assert sorted(row.name for row in supply.available()) == sorted(NAMES)
    assert supply.remove("tiny-base") > 0
    with pytest.raises(errors.UnknownKernel):
        supply.get("tiny-base")


def test_an_exported_kernel_can_be_exported_again_and_that_gives_the_same_file(lab, exported, other, tmp_path):
    take(exported, lab, tmp_path)
    again = tmp_path / "again"
    bundle.write(again, [other().finished(name) for name in NAMES], Silent())
    assert again.read_bytes() == exported.read_bytes()


def test_the_hash_of_the_whole_file_can_be_required(lab, exported, tmp_path):
    with pytest.raises(errors.KernelError, match=r"has the SHA-256 .*: copy it again"):
        take(exported, lab, tmp_path, "ab" * 32)
    assert take(exported, lab, tmp_path, hashlib.sha256(exported.read_bytes()).hexdigest().upper())


def test_kernels_of_other_patches_are_refused(lab, exported, tmp_path):
    (lab.toml.parent / "lab.config").write_text("CONFIG_B=y\n")
    refused(exported, lab, tmp_path, "tiny-base was made with other patches or another configuration")


def kind(member, value):
    member.type = value
    member.linkname = "/etc/passwd"


LIES = {
    "absolute": lambda kernels, members: setattr(members[0][0], "name", "/etc/passwd"),
    "parent": lambda kernels, members: setattr(members[0][0], "name", "../config"),
    "symbolic link": lambda kernels, members: kind(members[0][0], tarfile.SYMTYPE),
    "hard link": lambda kernels, members: kind(members[0][0], tarfile.LNKTYPE),
    "device": lambda kernels, members: kind(members[0][0], tarfile.CHRTYPE),
    "pipe": lambda kernels, members: kind(members[0][0], tarfile.FIFOTYPE),
    "folder": lambda kernels, members: kind(members[0][0], tarfile.DIRTYPE),
    "extended header": lambda kernels, members: kind(members[0][0], tarfile.XHDTYPE),
    "long name": lambda kernels, members: kind(members[0][0], tarfile.GNUTYPE_LONGNAME),
    "sparse": lambda kernels, members: kind(members[0][0], tarfile.GNUTYPE_SPARSE),
    "order": lambda kernels, members: members.reverse(),
    "missing": lambda kernels, members: members.pop(),
    "more": lambda kernels, members: members.append(members[0]),
    "listed path absolute": lambda kernels, members: kernels[0]["files"][0].update(path="/etc/passwd"),
    "listed path up": lambda kernels, members: kernels[0]["files"][0].update(path="../config"),
    "listed path in a folder": lambda kernels, members: kernels[0]["files"][0].update(path="modules/../../x"),
    "listed path of the record": lambda kernels, members: kernels[0]["files"][0].update(path=".x"),
    "listed twice": lambda kernels, members: kernels[0]["files"].append(kernels[0]["files"][0]),
    "size": lambda kernels, members: kernels[0]["files"][0].update(size=1),
    "negative size": lambda kernels, members: kernels[0]["files"][0].update(size=-1),
    "huge size": lambda kernels, members: kernels[0]["files"][0].update(size=1 << 40),
    "hash": lambda kernels, members: kernels[0]["files"][0].update(sha256="ab" * 32),
    "not a hash": lambda kernels, members: kernels[0]["files"][0].update(sha256="ab"),
    "key": lambda kernels, members: kernels[0].update(key="../../x"),
    "key with a line end": lambda kernels, members: kernels[0].update(key="ab" * 32 + "\n"),
    "name": lambda kernels, members: kernels[0].update(name="../x"),
    "name of a path": lambda kernels, members: kernels[0].update(name="/vmlinux"),
    "image": lambda kernels, members: kernels[0].update(image="../vmlinux"),
    "image not there": lambda kernels, members: kernels[0].update(image="bzImage.old"),
    "image no kernel": lambda kernels, members: kernels[0].update(image="config"),
    "version": lambda kernels, members: kernels[0].update(version={"package": 3}),
    "no version": lambda kernels, members: kernels[0].update(version=None),
    "release": lambda kernels, members: kernels[0].update(release="\x1b[2J"),
    "unknown field": lambda kernels, members: kernels[0].update(more=1),
    "no kernels": lambda kernels, members: kernels.clear(),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_file_that_lies_imports_nothing(lab, exported, tmp_path, lie):
    listed, members = content_of(exported)
    write(exported, listed, members)
    assert take(exported, lab, tmp_path)
    shutil.rmtree(tmp_path / "other")
    lie(listed["kernels"], members)
    write(exported, listed, members)
    refused(exported, lab, tmp_path, "cannot be imported: .*Nothing was imported|Nothing was imported$")
    assert not (tmp_path / "config").exists()


def test_the_last_kernel_may_be_the_one_that_lies(lab, exported, tmp_path):
    listed, members = content_of(exported)
    listed["kernels"][-1]["files"][-1]["sha256"] = "ab" * 32
    write(exported, listed, members)
    refused(exported, lab, tmp_path, "is not what was exported")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"format": "1"}', b"[" * 100_000, b"\xff", b"0" * (1 << 20)])
def test_a_list_that_is_none_imports_nothing(lab, exported, tmp_path, text):
    _, members = content_of(exported)
    write(exported, text, members)
    refused(exported, lab, tmp_path, "its list of kernels (is not valid|has 1048576 bytes)")


@pytest.mark.parametrize("version", [0, 2])
def test_another_version_of_the_format_is_refused(lab, exported, tmp_path, version):
    _, members = content_of(exported)
    write(exported, {"format": version, "something": "else"}, members)
    refused(exported, lab, tmp_path, f"it has the format {version}, this uffdlab reads 1")


def test_data_after_the_end_is_refused(lab, exported, tmp_path):
    listed, members = content_of(exported)
    write(exported, listed, members, tail=b"x")
    refused(exported, lab, tmp_path, "it has more data than its list of kernels says")
    write(exported, listed, members)
    exported.write_bytes(exported.read_bytes() + b"x")
    refused(exported, lab, tmp_path, "it has more data than its list of kernels says")


def test_a_file_that_unpacks_to_much_more_is_refused_without_unpacking_it(lab, exported, tmp_path):
    packer = zstandard.ZstdCompressor().compressobj()
    exported.write_bytes(b"".join(packer.compress(bytes(1 << 24)) for _ in range(16)) + packer.flush())
    assert exported.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(exported, lab, tmp_path, "cannot be imported")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"x" * 10_000, bytes(10_240)])
def test_a_file_that_is_no_export_is_refused(lab, exported, tmp_path, data):
    exported.write_bytes(data)
    refused(exported, lab, tmp_path, "cannot be imported")
    exported.write_bytes(zstandard.compress(data))
    refused(exported, lab, tmp_path, "cannot be imported")


def test_a_file_cut_short_or_changed_anywhere_imports_nothing(lab, exported, tmp_path):
    whole = exported.read_bytes()

    @given(at=st.integers(0, len(whole) - 1), difference=st.integers(1, 255), cut=st.booleans())
    @example(at=len(whole) - 1, difference=1, cut=True)
    def damage(at, difference, cut):
        changed = whole[:at] + (b"" if cut else bytes([whole[at] ^ difference]) + whole[at + 1 :])
        exported.write_bytes(changed)
        try:
            kernels = take(exported, lab, tmp_path)
        except errors.UffdlabError:
            assert not list((tmp_path / "other").glob("images/*"))
        else:  # bits of zstd that mean nothing
            assert not cut
            assert [kernel.name for kernel in kernels] == list(NAMES)
            shutil.rmtree(tmp_path / "other")

    damage()


def test_a_file_that_cannot_be_read_or_written_is_an_error(lab, exported, tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(errors.HostUnsupported, match="cannot be read"):
            take(path, lab, tmp_path)
    for path in (tmp_path / "none" / "x", exported / "x", tmp_path):
        with pytest.raises(errors.HostUnsupported, match="cannot be written to"):
            bundle.write(path, [lab.supply().finished("tiny-base")], Silent())


def test_an_import_after_kill_9_leaves_nothing(lab, exported, tmp_path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom uffdlab.kernels import bundle\n"
        "from uffdlab.kernels.cache import Cache\nfrom uffdlab.kernels.catalogue import Catalogue\n"
        "from uffdlab.kernels.progress import Silent\n"
        "bundle._publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "bundle.read(Path(sys.argv[1]), Cache(Path(sys.argv[2])), Catalogue({}), Silent())\n"
    )
    environment = {**os.environ}
    command = [sys.executable, "-c", code, exported, tmp_path / "other"]
    assert subprocess.run(command, check=False, timeout=60, env=environment).returncode == -signal.SIGKILL
    assert not (tmp_path / "other" / "images").exists()
    assert take(exported, lab, tmp_path)
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["images", "locks"]
