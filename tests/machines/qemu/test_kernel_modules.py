"""Modules are loaded after the modules they need."""

import lzma

import pytest

from uffdlab import errors
from uffdlab.machines.qemu import kernel_modules


def module(depends):
    return b"\x7fELF...license=GPL\0depends=" + depends.encode() + b"\0retpoline=Y\0"


@pytest.fixture
def image(tmp_path):
    (tmp_path / "modules").mkdir()
    return tmp_path / "vmlinux"


def write_modules(image, **depends):
    for name, dependencies in depends.items():
        (image.parent / "modules" / f"{name}.ko").write_bytes(module(dependencies))


def test_without_a_folder_of_modules_there_are_none(tmp_path):
    assert kernel_modules.beside(tmp_path / "vmlinux") == {}


def test_modules_are_ordered_after_those_they_need(image):
    write_modules(image, a_last="virtio,b", virtio="virtio_ring", virtio_ring="", b="built_in_elsewhere")
    found = kernel_modules.beside(image)
    names = [name.split("-", 1)[1] for name in sorted(found)]
    assert set(names) == {"a_last.ko", "virtio.ko", "virtio_ring.ko", "b.ko"}
    assert names.index("virtio_ring.ko") < names.index("virtio.ko") < names.index("a_last.ko")
    assert names.index("b.ko") < names.index("a_last.ko")


def test_modules_are_decompressed_and_hyphens_become_underscores(image):
    (image.parent / "modules" / "rng-core.ko.xz").write_bytes(lzma.compress(module("")))
    (image.parent / "modules" / "virtio-rng.ko").write_bytes(module("rng-core"))
    assert kernel_modules.beside(image) == {
        "modules/00-rng_core.ko": module(""),
        "modules/01-virtio_rng.ko": module("rng-core"),
    }


def test_modules_that_depend_on_each_other_are_refused(image):
    write_modules(image, a="b", b="a", c="")
    with pytest.raises(errors.KernelError, match="a, b need each other"):
        kernel_modules.beside(image)


def test_a_damaged_module_is_refused(image):
    (image.parent / "modules" / "a.ko.xz").write_bytes(b"no xz")
    with pytest.raises(errors.KernelError, match=r"a\.ko\.xz"):
        kernel_modules.beside(image)


def test_a_module_without_modinfo_has_no_dependencies(image):
    (image.parent / "modules" / "a.ko").write_bytes(b"\x7fELF")
    assert list(kernel_modules.beside(image)) == ["modules/00-a.ko"]
