"""The first program at the other end of ssh: receives the agent and runs it, without writing to a disk there.

It is sent as text and run by the ``python3`` of that host.  Old versions must be able to run it too, to report their
version.  The agent's Python modules arrive in one archive, and its native modules as single files.  All are memfds,
which the kernel frees when the process ends in any way.
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
            sys.exit("the host has closed the connection")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _report(facts: dict) -> None:  # type: ignore[type-arg]
    data = json.dumps(facts).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def _facts() -> dict:  # type: ignore[type-arg]
    try:
        import _cffi_backend  # noqa: PLC0415 - it may be missing
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
    """Report the facts of this Python, receive the agent, load it, report the result, and run it."""
    _report(_facts())
    sent = _line()
    archive = _in_memory(_bytes(sent["archive"]))
    places = {name: _in_memory(_bytes(size)) for name, size in sent["native"]}
    sys.path.insert(0, archive)
    sys.meta_path.insert(0, _Native(places))
    sys.dont_write_bytecode = True
    try:
        from uffdlab.agent import stdio  # noqa: PLC0415 - importable only now
    except ImportError as error:
        _report({"failed": str(error)})
        return
    _report({"failed": ""})
    stdio.main(input_deadline=sent["input_deadline"])


if __name__ == "__main__":
    main()
