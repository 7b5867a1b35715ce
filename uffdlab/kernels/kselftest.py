"""The kernel's own userfaultfd tests, compiled from its source by its own Makefile."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab.cachedir import discard
from uffdlab.errors import BuildError, KernelError
from uffdlab.kernels import host_checks
from uffdlab.kernels.build import first_errors
from uffdlab.kernels.cache import Cache
from uffdlab.kernels.progress import automatic
from uffdlab.kernels.supply import Supply
from uffdlab.processes.job import JobTimeout, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uffdlab.kernels.progress import Progress

_RECIPE = 1  # part of the key: raise it when the same source comes to give other programs
_DEADLINE = 1800.0  # s
_SOURCE = "source.txt"
# As for a kernel: what make and Kbuild would take from the environment.
_LEFT_OUT = ("KBUILD_", "KCONFIG_", "MAKE", "ARCH", "CROSS_COMPILE", "CFLAGS", "LDFLAGS", "INSTALL_", "OUTPUT", "LLVM")
_TESTS = "tools/testing/selftests"
# Where a kernel has its tests, the newest first, and the programs among them that are about userfaultfd.
_PLACES = (
    (f"{_TESTS}/mm", ("uffd-unit-tests", "uffd-stress")),
    (f"{_TESTS}/mm", ("userfaultfd",)),
    (f"{_TESTS}/vm", ("userfaultfd",)),
)
# What of a source `make headers` and the tests' Makefile read.
_PARTS = (
    *("Makefile", "Kbuild", "Kconfig", "scripts", "usr", "include/uapi", "include/asm-generic", "mm/gup_test.h"),
    *("arch/x86/Makefile", "arch/x86/Makefile_32.cpu", "arch/x86/Kbuild", "arch/x86/entry/syscalls", "arch/x86/tools"),
    *("arch/x86/include/uapi", "arch/x86/include/asm/Kbuild", "arch/x86/include/asm/vdso"),
    *("tools/scripts", "tools/include", "tools/arch/x86/include", f"{_TESTS}/lib.mk", f"{_TESTS}/lib"),
    *(f"{_TESTS}/{name}" for name in ("kselftest.h", "kselftest_harness.h", "kselftest_module.h", "kselftest", "x86")),
    *(f"{_TESTS}/{name}" for name in ("mm", "vm", "pidfd", "memfd")),
)


@dataclass(frozen=True)
class Selftests:
    """Compiled tests.

    Attributes
    ----------
    programs : dict
        The file of each, by its name.
    source : str
        What they were compiled from, in words.
    """

    programs: dict[str, Path]
    source: str


def of_kernel(
    name: str, *, supply: Supply | None = None, cache: Cache | None = None, progress: Progress | None = None
) -> Selftests:
    """Give the tests of a kernel of the catalogue; they are compiled once.

    A packaged kernel has those of the Debian source package of its series, from the same suites.

    Raises
    ------
    UnknownKernel, SourceError, PatchError, BuildError, HostUnsupported
        They cannot be had; nothing half-done is left.
    """
    host_checks.require_build_tools()
    supply = supply or Supply()
    entry = supply.source_of(name, progress=progress)
    folder = _folder(cache)
    key = supply.sources.key(entry)
    if key is not None and (found := _find(folder, key)):
        return found
    with tempfile.TemporaryDirectory(dir=folder, prefix=_making(folder)) as scratch:
        words = supply.sources.copy(entry, _PARTS, Path(scratch, "source"), progress=progress)
        if entry.patches:
            words += f" with the patches of {name}"
        return _made(name, folder, supply.sources.key(entry) or "unknown", Path(scratch), words, progress)


def of_tree(tree: Path, *, cache: Cache | None = None, progress: Progress | None = None) -> Selftests:
    """Give the tests of a kernel's source tree, in which nothing is written.

    Raises
    ------
    KernelError
        It is no kernel's source, or has no tests for userfaultfd.
    BuildError, HostUnsupported
        They do not compile here; nothing half-done is left.
    """
    host_checks.require_build_tools()
    makefile = tree / "Makefile"
    if not makefile.is_file() or "PATCHLEVEL" not in makefile.read_text(errors="replace"):
        raise KernelError(f"{tree} is no kernel's source tree: it has no Makefile with a PATCHLEVEL", kernel=str(tree))
    folder = _folder(cache)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_making(folder)) as scratch:
        source = Path(scratch, "source")
        digest = hashlib.sha256(host_checks.toolchain().encode())
        for file in sorted(_files(tree)):
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / file, source / file, follow_symlinks=False)
            digest.update(f"{file}\0".encode() + (b"" if (tree / file).is_symlink() else (tree / file).read_bytes()))
        key = digest.hexdigest()
        return _find(folder, key) or _made(str(tree), folder, key, Path(scratch), f"the tree {tree}", progress)


def _files(tree: Path) -> set[Path]:
    found = set()
    for part in _PARTS:
        whole = tree / part
        files = whole.rglob("*") if whole.is_dir() else [whole]
        found |= {file.relative_to(tree) for file in files if file.is_symlink() or file.is_file()}
    return found


def _making(folder: Path) -> str:
    # A name for a folder to work in, with the process in it, by which what others left is known.
    for left in folder.glob("making-*"):
        process = left.name.split("-")[1]
        if not process.isdigit() or not Path("/proc", process).exists():
            shutil.rmtree(left, ignore_errors=True)
    return f"making-{os.getpid()}-"


def _folder(cache: Cache | None) -> Path:
    folder = (cache or Cache()).folder / "selftests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _place(folder: Path, key: str) -> Path:
    return folder / f"{key[:20]}-{_RECIPE}"


def _find(folder: Path, key: str) -> Selftests | None:
    made = _place(folder, key)
    if not (made / _SOURCE).is_file():
        return None
    programs = {path.name: path for path in sorted(made.iterdir()) if path.name != _SOURCE}
    return Selftests(programs, (made / _SOURCE).read_text())


def _made(name: str, folder: Path, key: str, scratch: Path, words: str, progress: Progress | None) -> Selftests:
    source, headers, made = scratch / "source", scratch / "headers", scratch / "made"
    for where, programs in _PLACES:
        if all((source / where / f"{program}.c").is_file() for program in programs):
            break
    else:
        raise KernelError(
            f"{name}: its source has no userfaultfd tests: neither {_PLACES[0][0]}/uffd-unit-tests.c nor "
            f"{_PLACES[-1][0]}/userfaultfd.c",
            kernel=name,
        )
    progress = progress or automatic()
    try:
        progress.start(name, f"compiling its userfaultfd tests, {', '.join(programs)}")
        made.mkdir()
        _make(name, ["-C", source, f"O={headers}", "ARCH=x86", "headers"])
        options = ["ARCH=x86_64", f"OUTPUT={made}", f"top_srcdir={source}"]
        options.append(f"KHDR_INCLUDES=-isystem {headers}/usr/include")
        _make(name, ["-C", source / where, *options, *(f"{made}/{program}" for program in programs)])
        progress.finish("compiled")
    finally:
        progress.close()
    for extra in [path for path in made.iterdir() if path.name not in programs]:
        extra.unlink()
    (made / _SOURCE).write_text(words)
    discard(_place(folder, key))
    made.rename(_place(folder, key))
    found = _find(folder, key)
    assert found is not None
    return found


def _make(name: str, words: Sequence[str | Path]) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_LEFT_OUT)}
    command = ["make", f"-j{len(os.sched_getaffinity(0)) + 1}", *words]
    try:
        status, said = run(command, deadline=_DEADLINE, env={**kept, "LC_ALL": "C"})
    except JobTimeout:
        status, said = -1, f"*** make had not finished after {_DEADLINE:.0f} s"
    if status:
        lines = said.splitlines()
        output = first_errors([line for line in lines if "rror" in line or "***" in line] or lines[-5:])
        raise BuildError(f"{name}: its userfaultfd tests do not compile:\n{output}", kernel=name, output=said)
