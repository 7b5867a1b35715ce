"""Build the PTE reader (kernel-patch/6.1/pte-reader) as a module for a Debian kernel, against that kernel's headers.

The packages of headers contain programs of Kbuild, which are linked to the C library of their own suite. So that C
library is fetched too, and its loader runs the programs.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab.cachedir import discard, write_atomically
from uffdlab.errors import BuildError, SourceError
from uffdlab.kernels import host_checks
from uffdlab.kernels.catalogue import default_file
from uffdlab.processes.job import JobTimeout, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uffdlab.kernels.apt import Archive
    from uffdlab.kernels.cache import Cache
    from uffdlab.kernels.catalogue import Packaged
    from uffdlab.kernels.images import Kernel
    from uffdlab.kernels.progress import Progress

_SOURCE = Path("6.1", "pte-reader")
_FILES = ("pte_reader.c", "Kbuild", "include/uapi/linux/pte_reader.h")
# Part of the key. Raise it when a change here makes the same inputs give a different module.
_RECIPE = 1
_FOLLOW = re.compile(r"linux-(headers|kbuild)-\d|lib(c6|elf1(t64)?|zstd1|lzma5|bz2-1\.0)$|zlib1g$")
_SPACE = 500_000_000  # bytes; measured: 0.2 GB of headers, and as much again on the way
_DEADLINE = 300.0  # s
_LOADER = "lib64/ld-linux-x86-64.so.2"
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")


def module_for(kernel: Kernel, entry: Packaged, cache: Cache, archive: Archive, progress: Progress) -> Path:
    """Return the path of ``pte_reader.ko`` for a packaged kernel. It is built once.

    Raises
    ------
    SourceError
        The kernel's headers could not be fetched.
    BuildError
        The module does not compile.
    HostUnsupported
        This host lacks a tool or disk space to compile the module.
    """
    source = default_file().parent / _SOURCE
    out = cache.folder / "modules" / f"pte_reader-{_key(kernel, source)}.ko"
    if out.is_file():
        return out
    host_checks.require_build_tools()
    suites = tuple(dict.fromkeys(name for suite in entry.suites for name in (suite, suite.removesuffix("-backports"))))
    root = cache.apt_root(suites)
    root.mkdir(parents=True, exist_ok=True)
    progress.start(f"PTE reader for {entry.name}", "not in the cache, building it against Debian's headers")
    with cache.locked(f"apt {'+'.join(suites)}", progress):
        if out.is_file():
            return out
        host_checks.require_space(root, _SPACE, f"building the PTE reader for {entry.name}")
        with tempfile.TemporaryDirectory(dir=root, prefix="unpacking-") as scratch_name:
            scratch = Path(scratch_name)
            _headers(kernel, suites, root, scratch, archive, progress)
            progress.stage("compiling the module")
            write_atomically(out, _compile(kernel, source, scratch))
    progress.finish("ready")
    return out


def _key(kernel: Kernel, source: Path) -> str:
    data = [b"%d" % _RECIPE, kernel.key.encode(), host_checks.toolchain().encode()]
    data += [(source / name).read_bytes() for name in _FILES]
    return hashlib.sha256(b"\0".join(data)).hexdigest()[:32]


def _headers(
    kernel: Kernel, suites: tuple[str, ...], root: Path, scratch: Path, archive: Archive, progress: Progress
) -> None:
    package = f"linux-headers-{kernel.release}"
    try:
        found = archive.resolve(package, suites, root, progress, follow=_FOLLOW)
        debs = archive.download(found, suites, root, progress)
    except SourceError as error:
        raise SourceError(
            f"{error}\nThe headers must have the kernel's own version, {kernel.release}. If the archive has only a "
            f"newer one, run `uffdlab kernel build {kernel.name} --refresh` first"
        ) from error
    try:
        progress.stage("unpacking the headers")
        for deb in debs:
            _run(["dpkg-deb", "-x", deb, scratch], kernel)
    finally:
        discard(root / "debs")
    for makefile in scratch.glob("usr/src/linux-headers-*/Makefile"):
        text = makefile.read_text(encoding="utf-8")
        makefile.write_text(re.sub(r"(?<![\w.-])/usr/src/", f"{scratch}/usr/src/", text), encoding="utf-8")
    loader = scratch / _LOADER
    if not loader.exists():
        loader = scratch / "usr" / _LOADER
    libraries = ":".join(str(scratch / folder) for folder in _LIBRARIES)
    for program in _programs(scratch.glob("usr/lib/linux-kbuild-*/**/*")):
        real = program.with_name(f"{program.name}.real")
        program.rename(real)
        # Some programs start others, whose paths they derive from their own name (argv[0]).
        start = f'exec {loader} --argv0 "$0" --library-path {libraries} {real} "$@"'
        program.write_text(f"#!/bin/sh\n{start}\n", encoding="utf-8")
        program.chmod(0o755)


def _programs(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o100:
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    found.append(path)
    return found


def _compile(kernel: Kernel, source: Path, scratch: Path) -> bytes:
    build = scratch / "pte-reader"
    for name in _FILES:
        (build / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, build / name)
    headers = scratch / "usr" / "src" / f"linux-headers-{kernel.release}"
    # This machine's compiler may be older than the one that built the kernel. There is no BTF: that would need pahole.
    settings = ["CC=gcc", "CONFIG_DEBUG_INFO_BTF_MODULES="]
    if _run(["gcc", "-fmin-function-alignment=16", "-E", "-x", "c", "/dev/null"], kernel, must=False):
        settings.append("CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=")
    _run(["make", "-C", headers, f"M={build}", *settings, "modules"], kernel)
    return (build / "pte_reader.ko").read_bytes()


def _run(command: list[str | Path], kernel: Kernel, *, must: bool = True) -> int:
    try:
        status, output = run(command, deadline=_DEADLINE)
    except JobTimeout:
        status, output = 1, f"not finished after {_DEADLINE:.0f} s"
    if status and must:
        raise BuildError(
            f"the PTE reader for {kernel.name}: {command[0]} ended with {status}:\n{output.strip()}",
            kernel=kernel.name,
            output=output,
        )
    return status
