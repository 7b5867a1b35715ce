"""The first process of the guest: prepares the system, runs the agent, and powers the machine off when that ends.

What it prints goes to the console. Only the agent writes to the agent's port, and only the target to the target's.
"""

from __future__ import annotations

import os
import sys
import time

from uffdlab.agent import commands, native, server
from uffdlab.agent.native import lib

PORT, TARGET_PORT = "uffdlab.agent", "uffdlab.target"
_PORTS = "/sys/class/virtio-ports"  # the name of each is in a file: vport0p1/name
_PORT_DEADLINE = 10.0  # seconds; it usually takes a few milliseconds
_MODULES = "/modules"  # .ko files, loaded in the order of their names: what is not built into the kernel

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MOUNTS = (
    ("proc", "/proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, True),
    ("sysfs", "/sys", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, True),
    ("devtmpfs", "/dev", _MS_NOSUID, True),
    ("tmpfs", "/dev/shm", _MS_NOSUID | _MS_NODEV, False),  # noqa: S108 - in a guest with one user
    ("tmpfs", "/tmp", _MS_NOSUID | _MS_NODEV, False),  # noqa: S108
    ("debugfs", "/sys/kernel/debug", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, False),
    ("hugetlbfs", "/dev/hugepages", _MS_NOSUID | _MS_NODEV, False),
)

_RNDADDENTROPY = 0x40085203  # linux/random.h: _IOW('R', 0x03, int[2])
_RNDRESEEDCRNG = 0x5207  # _IO('R', 0x07), 4.14+


def main() -> None:
    """Mount the file systems, open the ports, serve, power off.  Never returns."""
    try:
        _start()
    except BaseException as error:  # noqa: BLE001 - the host must see any error on the console
        # Before anything is imported: a guest in which an import fails must say so.
        os.write(2, f"uffdlab: the agent ended: {error!r}\n".encode(errors="replace"))
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os.sync()
        lib.lab_power_off()
        os._exit(1)  # the kernel panics then, and QEMU ends


def _start() -> None:
    _mount_all()
    _insert_modules()
    port, target_port = _open_port(PORT), _open_port(TARGET_PORT)
    os.environ.update(HOME="/root", PATH="/bin:/sbin:/usr/bin:/usr/sbin", TERM="dumb")
    lib.lab_ignore_interrupts()
    commands.METHODS["agent.after_restore"] = after_restore
    server.serve(port, port, target_port)


def _mount_all() -> None:
    for kind, where, flags, needed in _MOUNTS:
        try:
            os.makedirs(where, exist_ok=True)
        except OSError:
            if needed:
                raise
            continue
        try:
            native.mount(kind, where, flags)
        except OSError:
            if needed:
                raise


def _insert_modules() -> None:
    try:
        names = sorted(os.listdir(_MODULES))
    except FileNotFoundError:
        return
    for name in names:
        descriptor = os.open(f"{_MODULES}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            native.insert_module(descriptor)
        except OSError as error:
            print(f"uffdlab: module {name}: {os.strerror(error.errno or 0)}", file=sys.stderr)  # noqa: T201
        finally:
            os.close(descriptor)


def _open_port(wanted: str) -> int:
    until = time.monotonic() + _PORT_DEADLINE
    while True:
        try:
            ports = {_name_of(port): port for port in os.listdir(_PORTS)}
        except FileNotFoundError:
            ports = {}
        if wanted in ports:
            return os.open(f"/dev/{ports[wanted]}", os.O_RDWR | os.O_CLOEXEC)
        if time.monotonic() > until:
            raise TimeoutError(
                f"no virtio port is named {wanted}: the kernel needs VIRTIO_PCI and VIRTIO_CONSOLE, built in or "
                "as modules beside its image"
            )
        time.sleep(0.002)


def _name_of(port: str) -> str:
    try:
        with open(f"{_PORTS}/{port}/name", encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:  # a port appears before its name does
        return ""


def after_restore(entropy: bytes, wall_ns: int) -> None:
    """Reseed the random number generator of a restored machine and set its CLOCK_REALTIME.

    Parameters
    ----------
    entropy : bytes
        At least 32 fresh random bytes from the host.
    wall_ns : int
        CLOCK_REALTIME of the host, ns.

    Raises
    ------
    OSError
        The kernel refused one of the ioctls, or the time.
    """
    import fcntl

    descriptor = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
    try:
        # struct rand_pool_info: entropy in bits, size in bytes, the bytes.
        bits, size = ((each * len(entropy)).to_bytes(4, "little") for each in (8, 1))
        fcntl.ioctl(descriptor, _RNDADDENTROPY, bits + size + entropy)
        fcntl.ioctl(descriptor, _RNDRESEEDCRNG)
    finally:
        os.close(descriptor)
    time.clock_settime_ns(time.CLOCK_REALTIME, wall_ns)
