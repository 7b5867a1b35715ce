"""Check what this host needs to fetch or build a kernel."""

from __future__ import annotations

import contextlib
import errno
import platform
import shutil
import subprocess
from typing import TYPE_CHECKING

from uffdlab.data_folders import data_folder
from uffdlab.errors import HostUnsupported, KernelError
from uffdlab.processes import system_packages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

BUILD_TOOLS = ("gcc", "ld", "make", "bc", "flex", "bison", "patch", "tar", "xz")
_HEADERS = ("gelf.h",)
APT_TOOLS = ("apt-get", "apt-cache", "apt-config", "dpkg-deb")


def require_platform() -> None:
    """Raise :class:`HostUnsupported` if the host is not x86-64 Linux."""
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in {"x86_64", "AMD64"}:
        raise HostUnsupported(
            f"kernels are built and run on x86-64 Linux; this host is {machine} {system}: "
            "use an x86-64 Linux machine, or a VM of one",
            missing="x86-64 Linux",
        )


def require_apt() -> None:
    """Raise :class:`HostUnsupported` if the host has no apt or no dpkg."""
    missing = missing_tools(APT_TOOLS)
    if missing:
        raise HostUnsupported(
            "kernels and their sources come from Debian's archive, through apt and dpkg: missing "
            f"{', '.join(missing)}. {system_packages.how_to_install(*missing)}. Without apt: "
            "`uffdlab kernel export` on another machine and `uffdlab kernel import` here, or the path of your own "
            "vmlinux or bzImage in place of a kernel's name",
            missing=", ".join(missing),
        )


def require_build_tools() -> None:
    """Raise :class:`HostUnsupported` if the host lacks a tool or header to compile a kernel."""
    missing = missing_build_tools()
    if missing:
        more = (
            f"; `{data_folder('vm') / 'install-packages'} demo` installs all that is needed"
            if system_packages.manager() == "apt"
            else ""
        )
        raise HostUnsupported(
            f"a kernel cannot be compiled here: missing {', '.join(missing)}. "
            f"{system_packages.how_to_install(*missing)}{more}",
            missing=", ".join(missing),
        )


def missing_build_tools() -> list[str]:
    """Return the commands and headers that compiling a kernel needs and this host lacks."""
    missing = missing_tools(BUILD_TOOLS)
    if "gcc" not in missing:
        missing += [header for header in _HEADERS if not _has_header(header)]
    return missing


def missing_tools(tools: Iterable[str]) -> list[str]:
    """Return those commands that are not in PATH."""
    return [tool for tool in tools if shutil.which(tool) is None]


def require_space(folder: Path, size: int, what: str) -> None:
    """Raise :class:`HostUnsupported` if `folder` has less than `size` bytes free for `what`."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise HostUnsupported(
            f"{what} needs about {size / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are free: "
            "free some space, or point UFFDLAB_CACHE at a folder with more",
            missing="disk space",
        )


def disk_full(folder: Path, what: str) -> HostUnsupported:
    """Return the error for a disk that became full during `what`."""
    return HostUnsupported(
        f"{what}: the disk that holds {folder} is full ({errno.errorcode[errno.ENOSPC]}): "
        "free some space, or point UFFDLAB_CACHE at a folder with more. Incomplete files were removed",
        missing="disk space",
    )


@contextlib.contextmanager
def disk_errors(cache: Path, what: str) -> Iterator[None]:
    """Raise :class:`HostUnsupported` in place of a disk error in the cache folder during `what`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, KernelError):
            raise
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise disk_full(cache, what) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise HostUnsupported(
                f"{what}: {error.filename or cache} cannot be written ({error.strerror}): point "
                "UFFDLAB_CACHE at a folder that you can write to",
                missing="a writable cache",
            ) from error
        if error.errno in {errno.ENOENT, errno.ENOTDIR} and not cache.is_dir():
            raise HostUnsupported(
                f"{what}: the folder {cache} for kernels cannot be made ({error.strerror}): point "
                "UFFDLAB_CACHE at a folder that you can write to",
                missing="a writable cache",
            ) from error
        raise


def toolchain() -> str:
    """Return the versions of the compiler and the linker, or an empty string if one is missing."""
    names = []
    for tool in ("gcc", "ld"):
        path = shutil.which(tool)
        if path is None:
            return ""
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=20).stdout
        names.append(version.partition("\n")[0])
    return "; ".join(names)


def _has_header(header: str) -> bool:
    asked = subprocess.run(
        ["gcc", "-E", "-x", "c", "-", "-o", "/dev/null"],
        input=f"#include <{header}>\n".encode(),
        capture_output=True,
        check=False,
        timeout=20,
    )
    return asked.returncode == 0
