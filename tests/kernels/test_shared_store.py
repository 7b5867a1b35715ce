"""One user fills a store of kernels, another user only reads it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

from tests.other_user import as_another_user, listing, open_folder
from uffdlab import errors
from uffdlab.kernels import host_checks, shared_store
from uffdlab.kernels.cache import Cache
from uffdlab.kernels.catalogue import load
from uffdlab.kernels.images import Images
from uffdlab.kernels.progress import Silent
from uffdlab.kernels.supply import Supply


@pytest.fixture
def folder():
    with open_folder() as folder:
        yield folder


@pytest.fixture
def store(folder, lab):
    """Return a store that was filled under umask 077, with a kernel built here and a packaged one."""
    old = os.umask(0o077)
    try:
        for name in ("tiny-base", "packaged/here"):
            shared_store.share(lab.supply().finished(name, progress=Silent()), folder / "srv" / "kernels")
    finally:
        os.umask(old)
    return folder / "srv" / "kernels"


def student(folder, lab, store) -> Supply:
    """Return what a user has whose archive serves nothing and whose cache is empty."""
    lab.archive.versions.clear()
    kernels = folder / "kernels"
    if not kernels.exists():
        shutil.copytree(lab.toml.parent, kernels)
    return Supply(load(kernels / "kernels.toml"), Cache(folder / "cache", store), lab.archive)


def test_another_user_reads_the_kernels_and_writes_nothing_to_the_store(folder, lab, store):
    supply = student(folder, lab, store)
    before = listing(store)

    def use():
        with pytest.raises(PermissionError):
            (store / "mine").touch()
        kernels = [supply.get(name) for name in ("tiny-base", "packaged/here")]
        assert supply.log("tiny-base").read_text()
        return [(kernel, kernel.image.read_bytes(), kernel.config.read_text()) for kernel in kernels]

    for kernel, image, config in as_another_user(use):
        mine = lab.supply().find(kernel.name)
        assert kernel.image.parent.parent == store
        assert replace(kernel, image=mine.image, config=mine.config, log=mine.log) == mine
        assert (image, config) == (mine.image.read_bytes(), mine.config.read_text())
    assert listing(store) == before
    assert not (folder / "cache").exists()


def test_the_modes_do_not_depend_on_the_umask(store, folder):
    modes = {path.relative_to(folder): path.stat().st_mode & 0o777 for path in (folder / "srv").rglob("*")}
    for path, mode in modes.items():
        if path.name != ".lock":
            assert mode == (0o755 if (folder / path).is_dir() else 0o644), path
    assert shared_store.closed_folder(store) is None
    folder.chmod(0o700)
    assert shared_store.closed_folder(store) == folder


def test_the_users_own_kernel_comes_first(folder, lab, store):
    supply = student(folder, lab, store)
    shutil.copytree(lab.cache.folder, folder / "cache")
    assert supply.find("tiny-base").image.parent.parent == folder / "cache" / "images"
    assert [(row.name, row.origin) for row in supply.available() if row.kernel] == [
        ("tiny-base", ""),
        ("packaged/here", ""),
    ]
    assert supply.remove("tiny-base") > 0
    assert supply.find("tiny-base").image.parent.parent == store
    assert [row.origin for row in supply.available() if row.kernel] == ["shared", ""]


def test_a_kernel_of_the_store_may_be_built_by_another_compiler_but_not_from_other_patches(
    folder, lab, store, monkeypatch
):
    supply = student(folder, lab, store)
    monkeypatch.setattr(host_checks, "toolchain", lambda: "another")
    assert supply.find("tiny-base").image.parent.parent == store
    (folder / "kernels" / "lab.config").write_text("CONFIG_B=y\n")
    assert supply.find("tiny-base") is None
    assert supply.find("packaged/here") is not None


def test_the_newest_version_in_the_store_is_used(folder, lab, store):
    first = lab.supply().find("tiny-base")
    lab.archive.versions["linux-source-tiny"] = "6.1.0-2"
    second = shared_store.share(lab.supply().finished("tiny-base", progress=Silent(), refresh=True), store)
    assert second.key != first.key
    assert student(folder, lab, store).find("tiny-base") == second
    assert len(Images(store).usable("tiny-base")) == 2


def test_a_kernel_that_is_not_in_the_catalogue_is_used_and_listed(folder, lab, store):
    (folder / "kernels").mkdir()
    (folder / "kernels" / "kernels.toml").write_text("")
    supply = student(folder, lab, store)
    assert supply.get("packaged/here").image.parent.parent == store
    assert [row.name for row in supply.available()] == ["packaged/here", "tiny-base"]
    assert {row.origin for row in supply.available()} == {"shared"}
    with pytest.raises(errors.KernelError, match="only the finished kernel is here"):
        supply.source_of("tiny-base")
    with pytest.raises(errors.UnknownKernel):
        supply.get("tiny-two")


def test_sharing_again_copies_nothing_and_removes_what_a_killed_process_left(lab, store):
    before = {path: state[2:4] for path, state in listing(store).items() if path.name == "vmlinux"}
    (store / ".incoming").mkdir()
    (store / ".incoming" / "vmlinux").touch()
    shared_store.share(lab.supply().finished("tiny-base"), store)
    assert {path: listing(store)[path][2:4] for path in before} == before
    (Images(store).find("tiny-base", lab.supply().find("tiny-base").key)).image.unlink()
    shared_store.share(lab.supply().finished("tiny-base"), store)
    assert sorted(path.name for path in store.iterdir() if path.name.startswith(".")) == [".lock"]


def test_a_store_that_is_not_there_is_an_error_only_when_it_is_needed(folder, lab, store):
    store.rename(folder / "away")
    supply = student(folder, lab, store)
    with pytest.raises(errors.HostUnsupported, match=f"the shared kernels in {store} cannot be read: No such file"):
        supply.get("tiny-base")
    shutil.copytree(lab.cache.folder, folder / "cache")
    assert supply.get("tiny-base")


def test_a_store_that_cannot_be_read_is_an_error(folder, lab, store):
    store.chmod(0o700)
    with pytest.raises(errors.HostUnsupported, match="cannot be read: Permission denied"):
        as_another_user(student(folder, lab, store).get, "tiny-base")


def test_a_cache_folder_of_somebody_else_is_an_error(folder, lab, store):
    # Which folder fails first depends on how it is closed; each is an error in words.
    cache = folder / "theirs"
    shutil.copytree(lab.cache.folder, cache)
    for mode in (0o000, 0o755):
        cache.chmod(mode)
        supply = Supply(load(lab.toml), Cache(cache), lab.archive)
        with pytest.raises(errors.HostUnsupported, match="point UFFDLAB_CACHE at a folder that you can write to"):
            as_another_user(supply.get, "tiny-two")


def test_a_store_that_cannot_be_written_is_an_error(lab, folder, store):
    finished = lab.supply().finished("tiny-base")
    with pytest.raises(errors.HostUnsupported, match=r"tiny-base cannot be written to .*: Permission denied"):
        as_another_user(shared_store.share, finished, store)
    (folder / "file").touch()
    with pytest.raises(errors.HostUnsupported, match="cannot be written to"):
        shared_store.share(finished, folder / "file" / "store")
