"""The key of a kernel in the cache: the hash of everything that goes into the kernel."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from uffdlab.errors import KernelError
from uffdlab.kernels import build, host_checks
from uffdlab.kernels.catalogue import Built

if TYPE_CHECKING:
    from pathlib import Path

    from uffdlab.kernels.apt import Resolved
    from uffdlab.kernels.catalogue import Entry

# Raise it when a change in uffdlab.kernels.unpack makes the same packages give a different image.
_PACKAGED_RECIPE = 3


def key_of(entry: Entry, found: Resolved) -> str:
    """Return the hash of everything that goes into a kernel, in hexadecimal."""
    inputs = _inputs(entry, found)
    return _hash(inputs | {"toolchain": host_checks.toolchain()} if isinstance(entry, Built) else inputs)


def made_of(entry: Entry, found: Resolved) -> str:
    """Return the hash of what a kernel is made from, without the compiler, in hexadecimal."""
    return _hash(_inputs(entry, found))


def _inputs(entry: Entry, found: Resolved) -> dict[str, object]:
    inputs: dict[str, object] = {"debs": [(deb.package, deb.version, deb.sha256) for deb in found.debs]}
    if isinstance(entry, Built):
        inputs |= {
            "recipe": build.RECIPE,
            "patches": _digests(entry.patches),
            "config": _digests(entry.config),
            "localversion": entry.localversion,
        } | ({"image": entry.image} if entry.image != "vmlinux" else {})
    else:
        inputs["recipe"] = _PACKAGED_RECIPE
    return inputs


def source_key(entry: Built, found: Resolved) -> str:
    """Return the hash of a kernel's source, its package and its patches, in hexadecimal."""
    return _hash([found.debs[0].sha256, *_digests(entry.patches)])


def _digests(paths: tuple[Path, ...]) -> list[str]:
    try:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    except OSError as error:
        raise KernelError(f"{error.filename}: {error.strerror}: was the kernel removed just now?") from error


def _hash(inputs: object) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
