"""A guest cannot reach its host, and other users of the host cannot reach the guest."""

import ctypes
import os
import pwd
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from uffdlab import cachedir
from uffdlab.errors import MachineError
from uffdlab.lab import Lab
from uffdlab.processes import supervisor

pytestmark = pytest.mark.vm

INTERNAL_FILE_SYSTEMS = {"rootfs", "proc", "sysfs", "devtmpfs", "tmpfs", "debugfs", "hugetlbfs"}
# include/linux/pci_ids.h, the upper byte of a class: devices that could reach a disk, a network or a serial bus.
STORAGE, NETWORK, SERIAL_BUS = 0x01, 0x02, 0x0C


def in_guest(lab, script):
    return lab.exec(["sh", "-c", script], deadline=60).text


def emulator(lab):
    supervisor = lab.machine.pids[0]
    return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text())


def test_the_guest_has_no_network(lab):
    assert in_guest(lab, "ls /sys/class/net").split() in ([], ["lo"])
    # The host's address in QEMU's own network.
    done = lab.exec(["ping", "-c", "1", "-W", "5", "10.0.2.2"])
    assert done.status
    assert b"Network is unreachable" in done.stderr or b"not supported" in done.stderr


def test_the_guest_has_no_disk_network_or_serial_bus(lab):
    classes = [int(text, 16) >> 16 for text in in_guest(lab, "cat /sys/bus/pci/devices/*/class").split()]
    assert classes
    assert not {STORAGE, NETWORK, SERIAL_BUS} & set(classes)
    kinds = {line.split()[2] for line in in_guest(lab, "cat /proc/mounts").splitlines()}
    assert kinds <= INTERNAL_FILE_SYSTEMS
    assert all(name.startswith(("ram", "loop", "zram")) for name in in_guest(lab, "ls /sys/class/block").split())


def test_writes_of_the_guest_change_no_file_of_the_host(lab):
    def files():
        return {
            path: (path.stat().st_size, path.stat().st_mtime_ns)
            for name in ("initramfs", "images")
            for path in cachedir.folder(name).rglob("*")
            if path.is_file()
        }

    image = lab.machine.settings.image
    before, content = files()[image], image.read_bytes()
    in_guest(
        lab, "for f in /init /usr/bin/python3 /new_file; do echo changed >$f 2>/dev/null; done; echo b >/tmp/x; sync"
    )
    assert in_guest(lab, "cat /new_file") == "changed\n"
    assert files()[image] == before
    assert image.read_bytes() == content
    lab.reset()
    assert in_guest(lab, "ls / | grep -c new_file") == "0\n"


def test_qemu_has_a_seccomp_filter(lab):
    status = Path(f"/proc/{emulator(lab)}/status").read_text()
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")
def test_the_qemu_of_root_runs_as_an_unprivileged_user(lab):
    with Lab("6.1-series", memory_mib=768) as other:
        found = []
        for running in (lab, other):
            status = dict(
                line.split(":", 1) for line in Path(f"/proc/{emulator(running)}/status").read_text().splitlines()
            )
            (user,) = set(status["Uid"].split())
            assert set(status["Gid"].split()) == {user}
            assert not status["Groups"].split()
            assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == int(status["CapAmb"], 16) == 0
            assert status["NoNewPrivs"].strip() == "1"
            with pytest.raises(KeyError):
                pwd.getpwuid(int(user))
            found.append(user)
    assert found[0] != found[1]  # another user cannot inspect the process
    assert "0" not in found


def test_qemu_cannot_write_to_any_file_of_the_host(lab):
    if ctypes.CDLL(None).syscall(supervisor._CREATE_RULESET, None, ctypes.c_size_t(0), supervisor._VERSION) < 1:
        pytest.skip("no Landlock in this host's kernel")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        dump = folder / "memory"
        with pytest.raises(MachineError, match=r"Permission denied|Could not open"):
            lab.machine.monitor.execute("pmemsave", {"val": 0, "size": 4096, "filename": str(dump)})
        assert not dump.exists()


def test_only_its_owner_can_use_the_socket_for_gdb():
    with Lab("6.1-series") as lab:
        stub = Path(re.search(r"target remote ([^']+)'", lab.gdb())[1])
        assert stat.S_ISSOCK(stub.stat().st_mode)
        assert stat.S_IMODE(stub.stat().st_mode) == 0o600
        assert stat.S_IMODE(stub.parent.stat().st_mode) == 0o700
        assert stub.parent.stat().st_uid == os.geteuid()
    assert not stub.parent.exists()


def test_a_running_guest_has_no_named_writable_file_or_socket(lab):
    found = {link: str(link.readlink()) for link in Path(f"/proc/{emulator(lab)}/fd").iterdir()}
    named = {line.split()[6]: line.split()[7] for line in Path("/proc/net/unix").read_text().splitlines()[1:]
             if len(line.split()) > 7}  # fmt: skip
    for link, target in found.items():
        if target.startswith("socket:["):
            assert target[8:-1] not in named
        elif target.startswith("/memfd:"):
            assert target.endswith(" (deleted)")
        elif target.startswith("/") and not target.startswith("/dev/"):
            flags = int(re.search(r"flags:\t(\d+)", Path(str(link).replace("/fd/", "/fdinfo/")).read_text())[1], 8)
            assert flags & os.O_ACCMODE == os.O_RDONLY, target
    assert any(target.startswith("/memfd:uffdlab-ram") for target in found.values())


def test_only_its_owner_can_read_a_saved_machine(lab):
    assert lab.release
    folder = cachedir.folder("machines")
    states = list(folder.glob("*.state"))
    assert states
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in states)


RESTORER = """
from uffdlab import Lab
with Lab("6.1-series", memory_mib=768) as lab:
    region = lab.map(pages=2)
    region.alias.fill(5)
    print(region.alias.read(1).result(), lab.machine.restored)
"""


def test_two_processes_restore_one_state_at_the_same_time():
    # No other test uses, or damages, the saved state of this memory size.
    Lab("6.1-series", memory_mib=768).close()
    both = [subprocess.Popen([sys.executable, "-c", RESTORER], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=200)[0] for process in both] == ["6 True\n"] * 2
