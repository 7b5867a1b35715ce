"""Whether guests run under KVM or under emulation on this host.

/dev/kvm may open and answer ioctls, and still not run a guest.  Only a guest whose agent answers proves that KVM works.
So the first start after a boot of the host tries one, and the result is saved until the next boot.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from uffdlab import cachedir, errors, settings

if TYPE_CHECKING:
    from collections.abc import Callable

    M = TypeVar("M")

DEVICE = Path("/dev/kvm")

_PROBE = 10.0  # seconds; a guest under KVM sends its hello in less than one
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_log = logging.getLogger("uffdlab.machines")


def choose(program: str, boot: Callable[[str, float], M]) -> tuple[str, M | None]:
    """Return the accelerator for guests here, and the probe's guest if one was started and answered.

    ``$UFFDLAB_ACCEL`` decides if it is ``tcg`` or ``kvm``.  If it is unset or ``auto``, the result of the last probe
    does.  If there is none, a probe is made.

    Parameters
    ----------
    program : str
        The path of QEMU.  Each program has its own probe.
    boot : callable
        ``boot(accelerator, seconds)`` starts a guest and waits so many seconds for its hello.

    Raises
    ------
    UsageError
        ``$UFFDLAB_ACCEL`` is none of the three.
    """
    wanted = settings.accelerator()
    if wanted != "auto":
        return wanted, None
    path = cachedir.folder("accel") / "verdict.json"
    verdict = _remembered(path, program)
    if verdict is not None:
        return verdict, None
    from filelock import FileLock, Timeout  # noqa: PLC0415 - it takes 40 ms, and only the first start after a boot needs it

    try:
        with FileLock(path.with_suffix(".lock"), timeout=2 * _PROBE):
            verdict = _remembered(path, program)  # another process may have been faster
            if verdict is None:
                return _probe(path, program, boot)
    except Timeout:
        return "tcg", None
    return verdict, None


def verdict(program: str) -> tuple[str, str] | None:
    """Return the result of the last probe: ``("kvm", "")``, or ``("tcg", reason)``; None if this boot had none."""
    path = cachedir.root() / "accel" / "verdict.json"
    chosen = _remembered(path, program)
    if chosen is None:
        return None
    reason = str(json.loads(path.read_bytes()).get("reason", "")) if chosen == "tcg" else ""
    return chosen, reason


def known(program: str) -> str:
    """Return the accelerator that ``$UFFDLAB_ACCEL`` or the last probe decided on; ``"tcg"`` if there was none.

    This is for the Vagrant VM, which is not probed.
    """
    wanted = settings.accelerator()
    if wanted != "auto":
        return wanted
    return _remembered(cachedir.folder("accel") / "verdict.json", program) or "tcg"


def _probe(path: Path, program: str, boot: Callable[[str, float], M]) -> tuple[str, M | None]:
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        missing = "cannot be opened by this user" if DEVICE.exists() else "does not exist"
        return _fall_back(path, program, f"{DEVICE} {missing}")
    try:
        guest = boot("kvm", _PROBE)
    except errors.GuestPanic:
        raise  # the guest ran, so KVM works
    except errors.MachineTimeout as error:
        if error.console:  # the guest ran and hangs: save no result, and use emulation this time
            return "tcg", None
        return _fall_back(path, program, f"a guest under KVM sent nothing within {_PROBE:.0f} s")
    except errors.MachineError as error:
        return _fall_back(path, program, f"a guest under KVM did not start ({str(error).splitlines()[0]})")
    _remember(path, program, "kvm", "a guest answered")
    return "kvm", guest


def _fall_back(path: Path, program: str, reason: str) -> tuple[str, None]:
    # This is logged only here, so once for each boot of the host.
    _remember(path, program, "tcg", reason)
    _log.warning("guests run under emulation (TCG), several times slower than under KVM: %s", reason)
    return "tcg", None


def _identity(program: str) -> list[object]:
    found = Path(program).stat()
    usable = os.access(DEVICE, os.R_OK | os.W_OK)
    return [_BOOT_ID.read_text(encoding="ascii").strip(), program, found.st_mtime_ns, found.st_size, usable]


def _remembered(path: Path, program: str) -> str | None:
    try:
        known = json.loads(path.read_bytes())
        if known["identity"] == _identity(program) and known["accelerator"] in {"kvm", "tcg"}:
            return str(known["accelerator"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none, or it is not valid
    return None


def _remember(path: Path, program: str, accelerator: str, reason: str) -> None:
    record = {"identity": _identity(program), "accelerator": accelerator, "reason": reason}
    with cachedir.publish(path) as file:
        file.write(json.dumps(record).encode())
