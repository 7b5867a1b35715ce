"""Finished kernels in a folder."""

from __future__ import annotations

import os

import pytest

from uffdlab import errors
from uffdlab.kernels.apt import Deb, Resolved
from uffdlab.kernels.images import RECORD, Finished, Images, Kernel


def publish(images: Images, content: bytes, key: str = "ab" * 32, name: str = "a/b", **record) -> Kernel:
    folder = images.folder.parent / "made"
    folder.mkdir(parents=True)
    (folder / "vmlinux").write_bytes(content)
    return images.publish(folder, Finished(Kernel(name, folder / "vmlinux", "6.1", key), **record))


@pytest.fixture
def images(tmp_path) -> Images:
    return Images(tmp_path / "images")


def test_a_published_kernel_is_found_and_removed(images, tmp_path):
    assert images.find("a/b", "ab" * 32) is None
    kernel = publish(images, b"one")
    assert images.find("a/b", "ab" * 32) == kernel
    assert images.find("a/b", "cd" * 32) is None
    assert images.find("a", "ab" * 32) is None
    assert not (tmp_path / "made").exists()
    other = publish(images, b"other", name="a/b-c")
    assert [each.kernel for each in images.finished("a/b")] == [kernel]
    assert [each.kernel for each in images.all()] == [other, kernel]
    assert images.remove("a/b") > 3
    assert images.finished("a/b") == []
    assert [each.kernel for each in images.finished("a/b-c")] == [other]


def test_the_record_says_what_a_kernel_was_made_from(images):
    version = Resolved("linux-image-x", "6.1-1", (Deb("linux-image-x", "6.1-1", 5, "ef" * 32),))
    publish(images, b"one", made_of="cd" * 32, version=version, imported=True)
    (found,) = images.finished("a/b")
    assert (found.made_of, found.version, found.imported, found.size) == ("cd" * 32, version, True, 3)


def test_a_record_of_an_older_uffdlab_is_read(images):
    kernel = publish(images, b"one")
    record = kernel.image.parent / RECORD
    record.write_text(record.read_text().replace('"version": null,', "").replace('"imported": false,', ""))
    (found,) = images.finished("a/b")
    assert (found.kernel, found.version, found.imported) == (kernel, None, False)


def test_a_damaged_kernel_is_not_found(images):
    kernel = publish(images, b"a whole one")
    kernel.image.write_bytes(b"a whole")
    assert images.find("a/b", "ab" * 32) is None
    assert images.usable("a/b") == images.all() == []
    assert len(images.finished("a/b")) == 1
    kernel.image.write_bytes(b"a whole one")
    assert images.find("a/b", "ab" * 32) == kernel
    for bad in ("{", "[]", "{}", ""):
        (kernel.image.parent / RECORD).write_text(bad)
        assert images.find("a/b", "ab" * 32) is None
        assert images.finished("a/b") == images.all() == []


def test_publishing_again_replaces_the_kernel(images):
    first = publish(images, b"one")
    first.image.unlink()
    assert images.find("a/b", "ab" * 32) is None
    assert publish(images, b"two").image.read_bytes() == b"two"


def test_a_folder_without_a_record_is_not_a_kernel(images):
    kernel = publish(images, b"one")
    (kernel.image.parent / RECORD).unlink()
    assert images.find("a/b", "ab" * 32) is None
    assert images.finished("a/b") == []


def test_the_newest_is_first_and_any_can_be_preferred(images):
    first, second = publish(images, b"one", "ab" * 32), publish(images, b"two", "cd" * 32)
    os.utime(first.image.parent / RECORD, ns=(1, 1))
    assert [each.kernel for each in images.usable("a/b")] == [second, first]
    assert images.prefer(first) == first
    assert [each.kernel for each in images.usable("a/b")] == [first, second]


def test_the_files_of_a_kernel_are_listed_without_its_record(images, tmp_path):
    folder = tmp_path / "made"
    (folder / "modules").mkdir(parents=True)
    for name in ("vmlinux", "config", "modules/brd.ko"):
        (folder / name).touch()
    images.publish(folder, Finished(Kernel("a", folder / "vmlinux", "", "ab" * 32)))
    (found,) = images.finished("a")
    assert [str(path.relative_to(found.folder)) for path in found.files()] == ["config", "modules/brd.ko", "vmlinux"]


def test_a_folder_that_cannot_be_read_is_an_error_where_it_must_be_readable(images):
    with pytest.raises(errors.HostUnsupported, match="No such file or directory"):
        images.require_readable()
    assert images.finished("a/b") == []
    publish(images, b"one")
    assert images.require_readable() is images
