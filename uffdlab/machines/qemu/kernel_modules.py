"""Kernel modules for the guest's initramfs: virtio and the RAM disk, for kernels that have these only as modules.

They are in the folder ``modules`` beside the image.  All of them are loaded at boot, in the order of dependencies.
"""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING

from uffdlab import errors

if TYPE_CHECKING:
    from pathlib import Path


def beside(image: Path) -> dict[str, bytes]:
    """Return the modules for a kernel image by their paths in the initramfs, ``modules/00-virtio_ring.ko`` and so on.

    Raises
    ------
    KernelError
        A module cannot be read, or the modules depend on each other in a cycle.
    """
    found: dict[str, bytes] = {}
    for path in sorted((image.parent / "modules").glob("*.ko*")):
        try:
            data = path.read_bytes()
            found[path.name.partition(".ko")[0].replace("-", "_")] = (
                lzma.decompress(data) if path.suffix == ".xz" else data
            )
        except (OSError, lzma.LZMAError) as error:
            raise errors.KernelError(f"the module {path} cannot be read: {error}", kernel=str(image)) from error
    return {f"modules/{place:02d}-{name}.ko": found[name] for place, name in enumerate(_in_order(found, image))}


def _in_order(modules: dict[str, bytes], image: Path) -> list[str]:
    waiting = {name: _needs(data) & modules.keys() for name, data in modules.items()}
    ordered: list[str] = []
    while waiting:
        ready = sorted(name for name, needs in waiting.items() if needs <= set(ordered))
        if not ready:
            raise errors.KernelError(f"the modules {', '.join(sorted(waiting))} need each other", kernel=str(image))
        ordered += ready
        for name in ready:
            del waiting[name]
    return ordered


def _needs(module: bytes) -> set[str]:
    # The section .modinfo is a list of NUL-terminated key=value; the key occurs once in a module.
    at = module.find(b"\0depends=")
    if at < 0:
        return set()
    names = module[at + 9 : module.index(b"\0", at + 9)].decode(errors="replace")
    return {name.replace("-", "_") for name in names.split(",") if name}
