"""Which box a real VM is made from.  A server on the loopback interface offers a substitute for Debian's box.

Each test has its own Vagrant boxes and its own cache.  It shares only the kernels with the user.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from uffdlab.kernels.cache import Cache
from uffdlab.lab import Lab
from uffdlab.machines.vagrant.box import DEBIAN, OWN, Boxes
from uffdlab.machines.vagrant.box import folder as box_folder
from uffdlab.machines.vagrant.machine import want

pytestmark = pytest.mark.timeout(3600)
BUILD_BOX = Path(__file__).parents[2] / "vm" / "build-box"
DEBUGFS = shutil.which("debugfs") or "/usr/sbin/debugfs"
MIB = 1 << 20
USERS_CACHE = Cache().folder
own_vm_in_qemu = pytest.mark.parametrize("own_vm", ["uffdlab_qemu"], indirect=True)


class Server(ThreadingHTTPServer):
    """Offers one box under the name of Debian's.  After the first MiB it waits for the event `go_on`."""

    def __init__(self, box, provider="libvirt"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.box = box
        offered = {"name": provider, "url": f"{self.url}/it.box"}
        self.catalog = json.dumps({"name": DEBIAN, "versions": [{"version": "12.1", "providers": [offered]}]}).encode()
        self.go_on = threading.Event()
        self.go_on.set()
        self.requested_paths = []


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.begin()

    def do_GET(self):
        self.server.requested_paths.append(self.path)
        if self.begin() == "application/json":
            self.wfile.write(self.server.catalog)
            return
        with self.server.box.open("rb") as box, contextlib.suppress(ConnectionError):
            self.wfile.write(box.read(MIB))
            self.server.go_on.wait(600)
            shutil.copyfileobj(box, self.wfile)

    def begin(self):
        kinds = {f"/{DEBIAN}": ("application/json", len(self.server.catalog))}
        kinds["/it.box"] = ("application/octet-stream", self.server.box.stat().st_size)
        if self.path not in kinds:
            self.send_error(404)
            return None
        kind, size = kinds[self.path]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        return kind

    def log_message(self, *_):
        """Log nothing."""


@pytest.fixture
def serve(monkeypatch):
    """Return a function that starts a server and makes Vagrant look for boxes there."""
    running = []

    def start(box, **options):
        server = Server(box, **options)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        running.append((server, thread))
        monkeypatch.setenv("VAGRANT_SERVER_URL", server.url)
        return server

    yield start
    for server, thread in running:
        server.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def large_files(own_vm, tmp_path, monkeypatch):
    """A folder for large files, removed after the test.  There is no box for `own_vm` yet."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for path in USERS_CACHE.iterdir():
        if path.name != "box":
            (cache / path.name).symlink_to(path)
    monkeypatch.setenv("UFFDLAB_CACHE", str(cache))
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("UFFDLAB_BOX")
    large = tmp_path / "large"
    large.mkdir()
    yield large
    own_vm.destroy()
    if own_vm.provider == "libvirt":
        arguments = ["virsh", "-q", "-c", "qemu:///system", "vol-delete", "--pool", "default"]
        subprocess.run([*arguments, "debian-VAGRANTSLASH-bookworm64_vagrant_box_image_12.1_box.img"], check=True)
    for folder in (large, tmp_path / "home", cache):
        shutil.rmtree(folder)


def packed(folder):
    """Return a box packed from the files of this folder."""
    box = folder / "it.box"
    with tarfile.open(box, "w") as archive:
        for name in ("metadata.json", "box.img"):
            archive.add(folder / name, name)
    return box


def own_disk(folder):
    """Return the disk of our own box, which has no partitions.  Write the metadata of Debian's box beside it."""
    subprocess.run([BUILD_BOX], env={**os.environ, "UFFDLAB_CACHE": str(USERS_CACHE)}, check=True)
    subprocess.run(["tar", "-xf", USERS_CACHE / "box" / "uffdlab.box", "-C", folder, "box.img"], check=True)
    (folder / "metadata.json").write_text('{"provider": "libvirt", "format": "qcow2", "virtual_size": 3}')
    return folder / "box.img"


def make_like_debians(disk):
    """Make our disk look like Debian's.

    Its file system moves into a partition.  Its fstab gets an entry that cannot be mounted.  The Python packages of the
    agent are removed.
    """
    plain, whole = disk.with_name("plain"), disk.with_name("whole")
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, plain], check=True)
    commands, fstab = disk.with_name("commands"), disk.with_name("fstab")
    fstab.write_text("PARTUUID=00000000-0f /boot/efi vfat defaults 0 1\n")
    lines = ["cd /etc", "rm fstab", f"write {fstab} fstab"]
    if sys.version_info[:2] == (3, 11):  # as in the box, which can then use the host's modules
        removed = ("msgpack", "_cffi_backend.cpython-311-x86_64-linux-gnu.so")
        lines += ["cd /usr/lib/python3/dist-packages", *(f"unlink {name}" for name in removed)]
    commands.write_text("".join(f"{line}\n" for line in lines))
    subprocess.run([DEBUGFS, "-w", "-f", commands, plain], capture_output=True, check=True)
    size = plain.stat().st_size
    # First sector: a partition table with one bootable Linux partition at 1 MiB, then the signature.
    entry = struct.pack("<B3xB3xII", 0x80, 0x83, MIB // 512, size // 512)
    whole.write_bytes(entry.rjust(446 + 16, b"\0").ljust(510, b"\0") + b"\x55\xaa")
    os.truncate(whole, MIB + size)
    arguments = ["dd", f"if={plain}", f"of={whole}", "bs=1M", "seek=1", "conv=sparse,notrunc", "status=none"]
    subprocess.run(arguments, check=True)
    plain.unlink()
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", whole, disk], check=True)
    whole.unlink()


def box_of(vm):
    """Return the name of the box that Vagrant made the VM from."""
    (notes,) = vm.data.glob("machines/default/*/box_meta")
    return json.loads(notes.read_text())["name"]


def installed_boxes():
    return subprocess.run(["vagrant", "box", "list"], capture_output=True, text=True, check=True).stdout


def test_the_vm_boots_from_the_partition_of_a_fetched_debian_box(own_vm, large_files, serve):
    make_like_debians(own_disk(large_files))
    server = serve(packed(large_files))
    with Lab("6.1-series", machine="vagrant") as lab:
        region = lab.map(pages=4)
        region.alias.fill()
        assert lab.cross_examine(region).agree
    assert box_of(own_vm) == DEBIAN
    assert own_vm.guest("findmnt -no SOURCE /") == (0, "/dev/vda1\n")
    assert "/boot/efi" in own_vm.guest("cat /etc/fstab")[1]
    assert "msgpack" in own_vm.guest("ls /opt/uffdlab/*")[1] or sys.version_info[:2] != (3, 11)  # from the host
    assert not (large_files.parent / "cache" / "box").exists()
    server.requested_paths.clear()
    own_vm.run_vagrant("halt")
    own_vm.run_vagrant("up")  # the Vagrantfile knows the box
    assert own_vm.run_vagrant("ssh", "-c", "findmnt -no SOURCE /").stdout.strip() == "/dev/vda1"
    assert server.requested_paths == []


@own_vm_in_qemu
def test_a_debian_box_that_does_not_boot_is_replaced_by_the_local_one(own_vm, large_files, serve):
    own_disk(large_files)  # no partition, hence no root device
    serve(packed(large_files))
    printed = []
    os.close(own_vm.bring_up(want("6.1-series")[1], printed.append))
    assert printed[0] == f"vagrant box add {DEBIAN}"
    note = box_folder() / "refused"
    assert [line for line in printed if line.startswith("the VM") or "taken" in line] == [
        f"the VM did not start from {DEBIAN}: removing it",
        f"{DEBIAN} is not used (the VM did not start from it, see {note}): making a box of Debian's packages",
    ]
    assert "Kernel panic - not syncing: VFS: Unable to mount root fs" in note.read_text()
    assert box_of(own_vm) == OWN
    assert own_vm.guest("findmnt -no SOURCE /") == (0, "/dev/vda\n")
    assert len(own_vm.qemu()) == 1


@pytest.fixture
def choose(own_vm, large_files):
    """Return a function that chooses a box with the real vagrant, without building one.

    It returns the choice and the printed lines.
    """

    def choose():
        printed = []
        build = large_files / "build-box"
        build.write_text("#!/bin/sh\n")
        build.chmod(0o755)
        return Boxes(build, own_vm._run, printed.append).choose(), printed

    return choose


@own_vm_in_qemu
def test_the_local_box_is_chosen_if_the_server_never_answers(own_vm, choose, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("VAGRANT_SERVER_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert choose() == (
            OWN,
            [
                f"vagrant box add {DEBIAN}",
                f"{DEBIAN} is not used (nothing received in 30 s): making a box of Debian's packages",
            ],
        )
    assert own_vm.host_resources() == []


@own_vm_in_qemu
@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("http://box.invalid", r"Could not resolve host: box\.invalid"),
        ("http://127.0.0.1:1", r"Failed to connect to 127\.0\.0\.1 port 1.*"),
        ("404", "The requested URL returned error: 404"),
    ],
)
def test_the_output_says_why_the_debian_box_cannot_be_fetched(choose, large_files, serve, monkeypatch, server, reason):
    if server == "404":
        (large_files / "it.box").touch()
        server = serve(large_files / "it.box").url + "/elsewhere"
    monkeypatch.setenv("VAGRANT_SERVER_URL", server)
    box, printed = choose()
    assert box == OWN
    assert re.fullmatch(rf"{DEBIAN} is not used \({reason}\): making a box of Debian's packages", printed[-1])


@own_vm_in_qemu
@pytest.mark.parametrize("provider", ["libvirt", "virtualbox"])
def test_the_box_fits_the_provider_and_is_fetched_once(choose, large_files, serve, monkeypatch, provider):
    (large_files / "metadata.json").write_text(json.dumps({"provider": provider, "format": "qcow2", "virtual_size": 1}))
    (large_files / "box.img").write_bytes(b"\0")
    server = serve(packed(large_files), provider=provider)
    with monkeypatch.context() as patch:
        if provider == "virtualbox":
            patch.setenv("VAGRANT_DEFAULT_PROVIDER", provider)
        assert choose() == (DEBIAN, [f"vagrant box add {DEBIAN}"])
        assert installed_boxes() == f"{DEBIAN} ({provider}, 12.1)\n"
        server.requested_paths.clear()
        assert choose() == (DEBIAN, [])
    assert server.requested_paths == []


@own_vm_in_qemu
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_during_the_download_leaves_nothing(own_vm, large_files, serve, wait_for, signal_number):
    (large_files / "metadata.json").write_text('{"provider": "libvirt", "format": "qcow2", "virtual_size": 1}')
    (large_files / "box.img").write_bytes(os.urandom(8 * MIB))
    serve(packed(large_files)).go_on.clear()
    arguments = [sys.executable, "-m", "uffdlab", "vagrant", "up"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as owner:
        home = Path(os.environ["VAGRANT_HOME"])
        wait_for(lambda: any(part.stat().st_size >= MIB // 2 for part in home.glob("tmp/box*")))
        owner.send_signal(signal_number)
        output, _ = owner.communicate(timeout=120)
    assert owner.returncode == (130 if signal_number == signal.SIGINT else -signal_number), output
    assert output.startswith(f"vagrant box add {DEBIAN}\n")
    own_vm.halt()  # waits for Vagrant, which gets a signal from its supervisor
    assert own_vm.host_resources() == []
    assert list(home.glob("boxes/*/*")) == []
    assert "no installed boxes" in installed_boxes()
