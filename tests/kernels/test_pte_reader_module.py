"""The PTE reader as a module: built once against a kernel's headers, then cached."""

from __future__ import annotations

import subprocess

import pytest
import tiny_kernel

from uffdlab import kernels
from uffdlab.errors import BuildError, KernelError, SourceError
from uffdlab.kernels.progress import Silent

HEADERS = "linux-headers-6.1.0-test"
# Like Debian's: it includes the Makefile of another package by its installed path, and runs a program of Kbuild.
MAKEFILE = "include /usr/src/linux-headers-6.1.0-common/Makefile\n"
COMMON = """
modules:
	cp $(M)/pte_reader.c $(M)/pte_reader.ko
	{there}/tool pte_reader >> $(M)/pte_reader.ko
	echo "$(CC) $(CONFIG_DEBUG_INFO_BTF_MODULES)." >> $(M)/pte_reader.ko
"""
TOOL = '#include <stdio.h>\nint main(int n, char **v)\n{\n\treturn !(n == 2 && printf("%s made it\\n", v[1]));\n}\n'


@pytest.fixture
def headers(lab, tmp_path):
    """Return a function that adds a package of headers, with its own C library, to the archive."""

    def make(common: str = COMMON) -> None:
        folder = tmp_path / "headers"
        folder.mkdir()
        lab.archive.folder = folder
        tiny_kernel.make_deb(
            folder,
            "linux-image-here",
            "6.12",
            {"boot/vmlinuz-6.12": tiny_kernel.bzimage(b"?"), "boot/config-6.12": b"CONFIG_A=y\n"},
        )
        (tmp_path / "tool.c").write_text(TOOL)
        subprocess.run(["gcc", "-o", tmp_path / "tool", tmp_path / "tool.c"], check=True)
        libraries = {
            f"lib/x86_64-linux-gnu/{name}": (tiny_kernel.Path("/lib/x86_64-linux-gnu") / name).read_bytes()
            for name in ("libc.so.6", "ld-linux-x86-64.so.2")
        }
        root = folder / f"{HEADERS}-1"
        tool = root / "usr/lib/linux-kbuild-6.1/tool"
        there = "$(dir $(lastword $(MAKEFILE_LIST)))../../lib/linux-kbuild-6.1"
        content = {
            f"usr/src/{HEADERS}/Makefile": MAKEFILE.encode(),
            "usr/src/linux-headers-6.1.0-common/Makefile": common.replace("{there}", there).encode(),
            **libraries,
        }
        for program, data in (
            (tool, (tmp_path / "tool").read_bytes()),
            (root / "lib64/ld-linux-x86-64.so.2", libraries["lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"]),
        ):
            program.parent.mkdir(parents=True)
            program.write_bytes(data)
            program.chmod(0o755)
        tiny_kernel.make_deb(folder, HEADERS, "1", content)
        lab.archive.versions[HEADERS] = "1"

    return make


def test_the_module_is_built_once_against_the_headers(lab, headers):
    headers()
    module = lab.supply().pte_reader("packaged/here", progress=Silent())
    source = (kernels.catalogue.default_file().parent / "6.1/pte-reader/pte_reader.c").read_text()
    assert module.read_text() == f"{source}pte_reader made it\ngcc .\n"
    resolved = lab.archive.resolved
    assert lab.supply().pte_reader("packaged/here", progress=Silent()) == module
    assert lab.archive.resolved == resolved
    assert [path for path in lab.leftovers() if path != "modules"] == []


def test_missing_headers_are_an_error(lab):
    with pytest.raises(SourceError, match=r"have no linux-headers-6.1.0-test\n.*kernel build packaged/here --refresh"):
        lab.supply().pte_reader("packaged/here", progress=Silent())
    assert lab.leftovers() == []


def test_a_module_that_does_not_compile_is_an_error(lab, headers):
    headers("modules:\n\techo no compiler; exit 3\n")
    with pytest.raises(BuildError, match=r"the PTE reader for packaged/here: make ended with 2:\n(.*\n)*no compiler"):
        lab.supply().pte_reader("packaged/here", progress=Silent())
    assert lab.leftovers() == []


def test_a_kernel_built_without_the_reader_is_refused(lab):
    with pytest.raises(KernelError, match="tiny-base was built without the PTE reader"):
        lab.supply().pte_reader("tiny-base", progress=Silent())
    (lab.toml.parent / "lab.config").write_text(f"{tiny_kernel.NEEDED}CONFIG_PTE_READER=y\n")
    assert lab.supply().pte_reader("tiny-base", progress=Silent()) is None
