"""``uffdlab cache``: what the cache folder has, how large it is, and how to empty it."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, NamedTuple

import click

from uffdlab import cachedir, settings
from uffdlab.cli import exit_status
from uffdlab.cli.parameters import as_json
from uffdlab.errors import KernelError, UffdlabError
from uffdlab.machines.qemu import saved_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Part(NamedTuple):
    folder: str
    about: str
    stays: bool = False  # without --all


_PARTS = (
    _Part("machines", "saved guests"),
    _Part("initramfs", "the guests' initramfs"),
    _Part("accel", "whether KVM works here"),
    _Part("vagrant", "copies of uffdlab for the Vagrant VM"),
    _Part("images", "kernels", stays=True),
    _Part("trees", "kernel sources and their objects", stays=True),
    _Part("apt", "package lists", stays=True),
    _Part("resolved", "versions of packages and trees", stays=True),
    _Part("modules", "PTE readers as modules", stays=True),
    _Part("selftests", "compiled kernel selftests", stays=True),
    _Part("logs", "logs of failed builds", stays=True),
    _Part("box", "the Vagrant box", stays=True),
)
_LOCKS = "locks"


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def cache(context: click.Context, as_json: bool) -> None:
    """Show what the cache has and how large it is; empty it.

    Sizes are on the disk. `uffdlab cache clear` empties it.
    """
    if context.invoked_subcommand is not None:
        return
    with exit_status.from_errors():
        root, shared, limit = cachedir.root(), settings.images_folder(), settings.saved_guests()
    found = [(part, *_size(root / part.folder)) for part in _PARTS]
    if as_json:
        parts = [
            {"folder": str(root / part.folder), "about": part.about, "bytes": size, "files": files}
            for part, size, files in found
        ]
        document = {
            "folder": str(root),
            "bytes": sum(size for _part, size, _files in found),
            "parts": parts,
            "saved_guests_limit": limit,
            "shared": None if shared is None else {"folder": str(shared), "bytes": _size(shared)[0]},
        }
        click.echo(json.dumps(document, indent=1))
        return
    for part, size, files in found:
        if files:
            more = f", at most {_text(limit)}" if part.folder == "machines" else ""
            click.echo(f"{_text(size):>9}  {part.about}{more}: {root / part.folder}")
    click.echo(f"{_text(sum(size for _part, size, _files in found)):>9}  in all: {root}")
    if shared is not None:
        click.echo(f"{_text(_size(shared)[0]):>9}  shared kernels, which are only read: {shared}")


@cache.command("clear")
@click.option("--all", "everything", is_flag=True, help="Kernels, sources and the Vagrant box too.")
def clear(everything: bool) -> None:
    """Remove what is made again in seconds: saved guests that no lab uses, the initramfs.

    With --all, also kernels and sources, which have to be fetched and built again. Your own list of kernels, the shared
    store and the disk of a Vagrant VM stay.
    """
    with exit_status.from_errors("cache clear"):
        root = cachedir.root()
        before = sum(_size(root / part.folder)[0] for part in _PARTS)
        with contextlib.ExitStack() as held:
            if everything:
                held.enter_context(_nobody_at_work(root))
            kept = saved_state.clear()[1] if (root / "machines").is_dir() else 0
            for part in _PARTS:
                if part.folder != "machines" and (everything or not part.stays):
                    _remove(root / part.folder)
        freed = before - sum(_size(root / part.folder)[0] for part in _PARTS)
    click.echo(f"{_text(freed)} removed from {root}")
    if kept:
        click.echo(f"{kept} saved guest{'s' if kept > 1 else ''} in use by a lab stay{'' if kept > 1 else 's'}.")


@contextlib.contextmanager
def _nobody_at_work(root: Path) -> Iterator[None]:
    # Holds every lock there is, so that nothing is removed while another process fetches or builds.
    with contextlib.ExitStack() as held:
        for lock in sorted((root / _LOCKS).glob("*.lock")):
            try:
                held.enter_context(cachedir.locked_file(lock, "the cache", deadline=0.0))
            except KernelError as error:
                raise UffdlabError(f"another process fetches or builds a kernel ({lock.name}): {error}") from error
        yield


def _remove(folder: Path) -> None:
    try:
        cachedir.discard(folder)
    except OSError as error:
        raise UffdlabError(f"{folder} cannot be removed: {error.strerror}") from error


def _size(folder: Path) -> tuple[int, int]:
    # The bytes on the disk, and the number of files.
    size = files = 0
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                info = path.lstat()
                size += info.st_blocks * 512
                files += not path.is_dir()
    return size, files


def _text(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
