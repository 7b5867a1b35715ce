"""The first thing that runs at the far end of ssh: takes the agent in and becomes it.  No disk there sees any of it.

It is sent as text and run by whatever ``python3`` is there; an old one must understand it too, so that it can say
what it is.  The agent's modules arrive in one archive, its native parts as they are, each in a file that lies in
memory and has no name: when the process ends, however it ends, they are gone.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location


def _line() -> dict:  # type: ignore[type-arg]
    taken = b""
    while not taken.endswith(b"\n"):
        taken += _bytes(1)
    return dict(json.loads(taken.decode()))


def _bytes(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            sys.exit("the host went away")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _say(facts: dict) -> None:  # type: ignore[type-arg]
    data = json.dumps(facts).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def _facts() -> dict:  # type: ignore[type-arg]
    try:
        import _cffi_backend  # noqa: PLC0415 - it may not be there
    except ImportError:
        cffi = ""
    else:
        cffi = _cffi_backend.__version__
    return {
        "python": list(sys.version_info[:3]),
        "system": os.uname().sysname,
        "machine": os.uname().machine,
        "libc": " ".join(platform.libc_ver()),
        "abi": EXTENSION_SUFFIXES[0],
        "cffi": cffi,
    }


def _in_memory(data: bytes) -> str:
    descriptor = os.memfd_create("uffdlab", os.MFD_CLOEXEC)
    while data:
        data = data[os.write(descriptor, data) :]
    return f"/proc/self/fd/{descriptor}"


class _Native:
    # Finds the modules that are not in the archive.
    def __init__(self, places: dict) -> None:  # type: ignore[type-arg]
        self._places = places

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        place = self._places.get(name)
        return place and spec_from_file_location(name, place, loader=ExtensionFileLoader(name, place))


def main() -> None:
    """Tell what there is, take what comes, load it, tell what came of that, and be the agent."""
    _say(_facts())
    sent = _line()
    archive = _in_memory(_bytes(sent["archive"]))
    places = {name: _in_memory(_bytes(size)) for name, size in sent["native"]}
    sys.path.insert(0, archive)
    sys.meta_path.insert(0, _Native(places))
    sys.dont_write_bytecode = True
    try:
        from uffdlab.agent import stdio  # noqa: PLC0415 - it is there now
    except ImportError as error:
        _say({"failed": str(error)})
        return
    _say({"failed": ""})
    stdio.main(silence=sent["silence"])


if __name__ == "__main__":
    main()
