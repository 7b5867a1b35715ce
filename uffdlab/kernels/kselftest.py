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

_RECIPE = 1  # part of the key: raise it when a change here makes the same source give different programs
_DEADLINE = 1800.0  # s
_SOURCE = "source.txt"
# Environment variables that make and Kbuild read, as in a kernel's build.
_LEFT_OUT = ("KBUILD_", "KCONFIG_", "MAKE", "ARCH", "CROSS_COMPILE", "CFLAGS", "LDFLAGS", "INSTALL_", "OUTPUT", "LLVM")
_TESTS = "tools/testing/selftests"
# The folders of a kernel's tests and the programs that test userfaultfd, newest kernels first.
_PLACES = (
    (f"{_TESTS}/mm", ("uffd-unit-tests", "uffd-stress")),
    (f"{_TESTS}/mm", ("userfaultfd",)),
    (f"{_TESTS}/vm", ("userfaultfd",)),
)
# The parts of a source that `make headers` and the tests' Makefile read.
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
    programs : dict of str to Path
        The program files by name.
    source : str
        A description of the source they were compiled from.
    """

    programs: dict[str, Path]
    source: str


def of_kernel(
    name: str, *, supply: Supply | None = None, cache: Cache | None = None, progress: Progress | None = None
) -> Selftests:
    """Return the tests of a kernel in the catalogue. They are compiled once.

    For a packaged kernel they come from the Debian source package of its series, in the same suites.

    Raises
    ------
    UnknownKernel, SourceError, PatchError, BuildError, HostUnsupported
        The tests could not be fetched or compiled. No incomplete files are left.
    """
    host_checks.require_build_tools()
    supply = supply or Supply()
    entry = supply.source_of(name, progress=progress)
    folder = _folder(cache)
    key = supply.sources.key(entry)
    if key is not None and (found := _find(folder, key)):
        return found
    with tempfile.TemporaryDirectory(dir=folder, prefix=_making(folder)) as scratch:
        description = supply.sources.copy(entry, _PARTS, Path(scratch, "source"), progress=progress)
        if entry.patches:
            description += f" with the patches of {name}"
        return _made(name, folder, supply.sources.key(entry) or "unknown", Path(scratch), description, progress)


def of_tree(tree: Path, *, cache: Cache | None = None, progress: Progress | None = None) -> Selftests:
    """Return the tests of a kernel's source tree. Nothing is written to the tree.

    Raises
    ------
    KernelError
        `tree` is not a kernel's source, or has no tests for userfaultfd.
    BuildError, HostUnsupported
        The tests do not compile here. No incomplete files are left.
    """
    host_checks.require_build_tools()
    makefile = tree / "Makefile"
    if not makefile.is_file() or "PATCHLEVEL" not in makefile.read_text(errors="replace"):
        raise KernelError(
            f"{tree} is not a kernel's source tree: it has no Makefile with a PATCHLEVEL. Give the top folder of one",
            kernel=str(tree),
        )
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
    # Returns a prefix for a temporary folder. It contains our pid, so that a later call can remove the folders of
    # processes that no longer exist.
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


def _made(name: str, folder: Path, key: str, scratch: Path, description: str, progress: Progress | None) -> Selftests:
    source, headers, made = scratch / "source", scratch / "headers", scratch / "made"
    for where, programs in _PLACES:
        if all((source / where / f"{program}.c").is_file() for program in programs):
            break
    else:
        raise KernelError(
            f"{name}: its source has no userfaultfd tests: neither {_PLACES[0][0]}/uffd-unit-tests.c nor "
            f"{_PLACES[-1][0]}/userfaultfd.c exists. Choose another kernel",
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
    (made / _SOURCE).write_text(description)
    discard(_place(folder, key))
    made.rename(_place(folder, key))
    found = _find(folder, key)
    assert found is not None
    return found


def _make(name: str, arguments: Sequence[str | Path]) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_LEFT_OUT)}
    command = ["make", f"-j{len(os.sched_getaffinity(0)) + 1}", *arguments]
    try:
        status, output = run(command, deadline=_DEADLINE, env={**environment, "LC_ALL": "C"})
    except JobTimeout:
        status, output = -1, f"*** make had not finished after {_DEADLINE:.0f} s"
    if status:
        lines = output.splitlines()
        reason = first_errors([line for line in lines if "rror" in line or "***" in line] or lines[-5:])
        raise BuildError(f"{name}: its userfaultfd tests do not compile:\n{reason}", kernel=name, output=output)
