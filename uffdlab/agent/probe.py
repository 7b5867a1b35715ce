"""What this kernel can do, found by trying it on scratch memory."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uffdlab import uapi
from uffdlab.agent import commands, mappings, userfaultfds
from uffdlab.agent.native import lib
from uffdlab.agent.rpc import Refusal
from uffdlab.uapi.ioctls import IOCTLS, Ioctl, Trial
from uffdlab.uapi.layout import UFFD_API
from uffdlab.uapi.memory import MEMORY, Memory

_PAGE = mmap.PAGESIZE
_PAGES = 2
_PLACE = 0xC_0000_0000  # aligned for huge pages; no region lies there
_NOT_PROBED = {"memfd", "hugetlb-1g", "hugetlb-1g-private"}  # they behave as shmem and hugetlb do
_MODES = uapi.RegisterMode
_NR_HUGEPAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
# Features that change what other ioctls do, and those with which munmap would wait for its event to be read.
_UNWANTED = (
    uapi.Feature.SIGBUS
    | uapi.Feature.WP_ASYNC
    | uapi.Feature.RWP_ASYNC
    | uapi.Feature.EVENT_FORK
    | uapi.Feature.EVENT_REMAP
    | uapi.Feature.EVENT_REMOVE
    | uapi.Feature.EVENT_UNMAP
)


@contextlib.contextmanager
def _scratch(memory: Memory) -> Iterator[mappings.Mapping]:
    mapping = mappings.make(memory, _PLACE, _PAGES * max(memory.page_size, memory.unit), "probe")
    try:
        yield mapping
    finally:
        mapping.close()


@contextlib.contextmanager
def _userfaultfd(features: int) -> Iterator[int]:
    fd, _ = userfaultfds.open_userfaultfd()
    try:
        answer = userfaultfds.call(fd, IOCTLS["UFFDIO_API"], {"api": UFFD_API, "features": features})
        if answer["errno"]:
            raise OSError(answer["errno"], "UFFDIO_API refused features that it has offered")
        yield fd
    finally:
        os.close(fd)


def _attempt(ioctl: Ioctl, trial: Trial, mode: int, features: int) -> int:
    """Return the errno of one ioctl on fresh memory, 0 if it worked."""
    with _userfaultfd(features) as fd, _scratch(MEMORY[trial.memory]) as memory, _scratch(MEMORY["anon"]) as other:
        lib.lab_poke(other.start, b"\1", 1)
        if trial.page == "present":
            lib.lab_poke(memory.start, b"\1", 1)
        elif trial.page == "cached":
            lib.lab_poke(memory.alias, b"\1", 1)
        page = {"start": memory.start, "len": _PAGE}
        registered = userfaultfds.call(fd, IOCTLS["UFFDIO_REGISTER"], {**page, "mode": trial.register})
        if registered["errno"]:
            return int(registered["errno"])
        values = {**page, "dst": memory.start, "src": other.start, "mode": mode}
        answer = userfaultfds.call(fd, ioctl, {name: values[name] for name in ioctl.fields if name in values})
        return int(answer["errno"])


def _modes(features: int) -> dict[str, dict[int, int]]:
    return {
        name: {mode: _attempt(ioctl, ioctl.trial, mode, features) for mode in (0, *(int(bit) for bit in ioctl.modes))}
        for name, ioctl in IOCTLS.items()
        if ioctl.trial
    }


def _modeless(features: int) -> tuple[dict[str, dict[int, int]], int]:
    """Return the errnos of the ioctls that every userfaultfd has, and the ioctls that UFFDIO_API reports."""
    with contextlib.ExitStack() as stack:
        fd, _ = userfaultfds.open_userfaultfd()
        stack.callback(os.close, fd)
        memory = stack.enter_context(_scratch(MEMORY["anon"]))
        page = {"start": memory.start, "len": _PAGE}
        answers = {
            name: userfaultfds.call(fd, IOCTLS[name], values)
            for name, values in (
                ("UFFDIO_API", {"api": UFFD_API, "features": features}),
                ("UFFDIO_REGISTER", {**page, "mode": int(_MODES.MISSING)}),
                ("UFFDIO_WAKE", page),
                ("UFFDIO_UNREGISTER", page),
            )
        }
    return {name: {0: answer["errno"]} for name, answer in answers.items()}, answers["UFFDIO_API"]["fields"]["ioctls"]


def _set_mode(features: int) -> int:
    with _userfaultfd(features) as fd:
        values = {"enable": int(uapi.Feature.RWP_ASYNC), "disable": 0}
        return int(userfaultfds.call(fd, IOCTLS["UFFDIO_SET_MODE"], values)["errno"])


def _memory(memory: Memory, features: int) -> dict[str, Any]:
    """Return the errno of mapping it, and for each mode of UFFDIO_REGISTER the errno and the ioctls it reports."""
    try:
        with _scratch(memory) as mapping:
            return {"errno": 0, "register": {int(mode): _register(mapping, mode, features) for mode in _MODES}}
    except OSError as error:
        return {"errno": error.errno or errno.EINVAL, "register": {}}
    except Refusal as refusal:
        return {"errno": refusal.data.get("errno", errno.EINVAL), "register": {}}


def _register(mapping: mappings.Mapping, mode: uapi.RegisterMode, features: int) -> dict[str, int]:
    with _userfaultfd(features) as fd:
        values = {"start": mapping.start, "len": mapping.length, "mode": int(mode)}
        answer = userfaultfds.call(fd, IOCTLS["UFFDIO_REGISTER"], values)
        return {"errno": answer["errno"], "ioctls": 0 if answer["errno"] else answer["fields"]["ioctls"]}


@contextlib.contextmanager
def _huge_pages() -> Iterator[None]:
    # The private mapping needs pages of its own besides those of its alias.
    before = _NR_HUGEPAGES.read_text() if _NR_HUGEPAGES.exists() else ""
    with contextlib.suppress(OSError):
        commands.reserve_hugepages(2 << 20, 2 * _PAGES)
    try:
        yield
    finally:
        if before:
            with contextlib.suppress(OSError):
                _NR_HUGEPAGES.write_text(before)


def capabilities() -> dict[str, Any]:
    """Return what this kernel can do, as found by trying.

    ``features``: the bits that UFFDIO_API offers.  ``ioctls``: the bits that UFFDIO_API and UFFDIO_REGISTER report.
    ``ways``: for each way to open a userfaultfd its errno.  ``modes``: for each ioctl and each of its modes the errno.
    ``memory``: see :func:`_memory`.  ``continue_wp``: whether UFFDIO_CONTINUE knows MODE_WP, which no feature bit says;
    None if it cannot be tried.
    """
    offered = userfaultfds.offered_features()
    features = offered & ~int(_UNWANTED)
    modes, ioctls = _modeless(features)
    modes |= _modes(features)
    modes["UFFDIO_SET_MODE"] = {0: _set_mode(features)}
    plain, wp = (modes["UFFDIO_CONTINUE"][mode] for mode in (0, int(uapi.ContinueMode.WP)))
    with _huge_pages():
        memory = {name: _memory(kind, features) for name, kind in MEMORY.items() if name not in _NOT_PROBED}
    for found in memory.values():
        for registered in found["register"].values():
            ioctls |= registered["ioctls"]
    return {
        "features": offered,
        "ioctls": ioctls,
        "ways": userfaultfds.ways(),
        "modes": modes,
        "memory": memory,
        "continue_wp": None if plain else wp == 0,
    }
