"""Find a kernel by its name in the catalogue, or by the path of its image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab.errors import KernelError, UnknownKernel
from uffdlab.kernels import catalogue, image
from uffdlab.kernels.images import Kernel
from uffdlab.kernels.supply import Supply

if TYPE_CHECKING:
    import os

    from uffdlab.kernels.progress import Progress

_PATH = ("/", "./", "../", "~")


def given(path: Path) -> Kernel:
    """Return a kernel whose image is the file `name`.

    Raises
    ------
    UnknownKernel
        The file does not exist.
    KernelError
        The file is not a kernel that QEMU can start.
    """
    name = str(path)
    try:
        data = path.expanduser().read_bytes()
        found = image.inspect(data)
    except OSError as error:
        raise UnknownKernel(
            f"{name}: {error.strerror}: give the path of a bzImage or vmlinux, or a name of kernel-patch/kernels.toml",
            kernel=name,
        ) from error
    except image.NotAKernel as error:
        raise KernelError(f"{name} is {error}: give the path of a bzImage or a vmlinux", kernel=name) from error
    return Kernel(name, path.expanduser().absolute(), found.release, hashlib.sha256(data).hexdigest())


def pte_reader(name: str | os.PathLike[str]) -> Path | None:
    """Return the PTE reader as a module for a kernel; see :meth:`Supply.pte_reader`.

    Raises
    ------
    KernelError
        The kernel was given by its path, so no headers are known to build the module against.
    """
    kernels = catalogue.load()
    if not isinstance(name, str) or name not in kernels:
        raise KernelError(
            f"{name}: the PTE reader is built against the headers of a kernel that Debian packages; this is an image",
            kernel=str(name),
        )
    return Supply(kernels).pte_reader(name)


def require_known(name: str) -> None:
    """Check that a kernel has this name, or that it is the path of a file.  Nothing is fetched.

    Raises
    ------
    UnknownKernel
        It is neither.
    CatalogueError
        The catalogue cannot be read.
    """
    if name.startswith(_PATH):
        if not Path(name).expanduser().is_file():
            given(Path(name))
    elif not Path(name).is_file():
        kernels = catalogue.load()
        if name not in kernels:
            Supply(kernels).find(name)


def get(name: str | os.PathLike[str], *, progress: Progress | None = None, refresh: bool = False) -> Kernel:
    """Return a kernel by its name or by the path of a bzImage or vmlinux; see :meth:`Supply.get`."""
    if not isinstance(name, str) or name.startswith(_PATH):
        return given(Path(name))
    kernels = catalogue.load()
    if name not in kernels and Path(name).is_file():
        return given(Path(name))
    return Supply(kernels).get(name, progress=progress, refresh=refresh)
