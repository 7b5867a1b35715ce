"""Whether guests run under KVM here, or under emulation.

/dev/kvm may open and answer, and still not run a guest.  Only a guest that has answered proves KVM, so the first start
after the host's boot tries one, and the verdict is remembered until the next.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock, Timeout

from uffdlab import errors
from uffdlab.machines import store

if TYPE_CHECKING:
    from collections.abc import Callable

    M = TypeVar("M")

DEVICE = Path("/dev/kvm")
VARIABLE = "UFFDLAB_ACCEL"

_PROBE = 10.0  # seconds; a guest under KVM says hello in less than one
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_log = logging.getLogger("uffdlab.machines")
_said = threading.Event()


@dataclass(frozen=True)
class Verdict:
    """What a probe found: ``"kvm"`` or ``"tcg"``, and why."""

    accelerator: str
    reason: str


def choose(program: str, boot: Callable[[str, float], M]) -> tuple[str, M | None]:
    """Return the accelerator for guests here, and the probe's guest if one was started and answered.

    ``$UFFDLAB_ACCEL`` decides if it is ``tcg`` or ``kvm``; unset or ``auto``, the verdict of the last probe, or a probe.

    Parameters
    ----------
    program : str
        QEMU; another one gets a probe of its own.
    boot : callable
        Starts a guest with an accelerator, waiting so many seconds for its hello.

    Raises
    ------
    UsageError
        ``$UFFDLAB_ACCEL`` is none of the three.
    """
    wanted = os.environ.get(VARIABLE) or "auto"
    if wanted in {"tcg", "kvm"}:
        return wanted, None
    if wanted != "auto":
        raise errors.UsageError(f"{VARIABLE}={wanted}: it is tcg, kvm or auto")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        missing = "cannot be opened by this user" if DEVICE.exists() else "is not there"
        _say_once(f"{DEVICE} {missing}")
        return "tcg", None
    path = store.folder("accel") / "verdict.json"
    verdict = _remembered(path, program)
    if verdict is not None:
        if verdict.accelerator == "tcg":
            _say_once(verdict.reason)
        return verdict.accelerator, None
    try:
        with FileLock(path.with_suffix(".lock"), timeout=2 * _PROBE):
            verdict = _remembered(path, program)  # of a process that was faster
            if verdict is None:
                return _probe(path, program, boot)
    except Timeout:
        return "tcg", None
    return verdict.accelerator, None


def _probe(path: Path, program: str, boot: Callable[[str, float], M]) -> tuple[str, M | None]:
    try:
        guest = boot("kvm", _PROBE)
    except errors.GuestPanic:
        raise  # it ran, so this is no matter of KVM
    except errors.MachineTimeout as error:
        if error.console:  # it ran, and hangs: no verdict on KVM, and the next try is under emulation
            return "tcg", None
        verdict = Verdict("tcg", f"a guest under KVM said nothing within {_PROBE:.0f} s")
    except errors.MachineError as error:
        verdict = Verdict("tcg", f"a guest under KVM did not come up ({str(error).splitlines()[0]})")
    else:
        _remember(path, program, Verdict("kvm", "a guest answered"))
        return "kvm", guest
    _remember(path, program, verdict)
    _say_once(verdict.reason)
    return "tcg", None


def _say_once(reason: str) -> None:
    if not _said.is_set():
        _said.set()
        _log.warning("guests run under emulation (TCG), several times slower than under KVM: %s", reason)


def _identity(program: str) -> list[object]:
    found = Path(program).stat()
    return [_BOOT_ID.read_text(encoding="ascii").strip(), program, found.st_mtime_ns, found.st_size]


def _remembered(path: Path, program: str) -> Verdict | None:
    try:
        known = json.loads(path.read_bytes())
        if known["identity"] == _identity(program) and known["accelerator"] in {"kvm", "tcg"}:
            return Verdict(known["accelerator"], str(known["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or not one of ours
    return None


def _remember(path: Path, program: str, verdict: Verdict) -> None:
    record = {"identity": _identity(program), "accelerator": verdict.accelerator, "reason": verdict.reason}
    with store.publish(path) as file:
        file.write(json.dumps(record).encode())
