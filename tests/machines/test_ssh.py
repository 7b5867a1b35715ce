"""A machine at the other end of ssh: a real sshd on loopback, with keys, configuration and port of its own."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from uffdlab import errors
from uffdlab.lab import Lab
from uffdlab.machines import ssh, ssh_bootstrap
from uffdlab.machines.rpc import heartbeat
from uffdlab.uapi.protocol.agent import Ping, SpawnTarget

from ..leftovers import alive, gone_within, open_resources

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(not SSHD, reason="no sshd here: apt-get install openssh-server")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """An sshd on loopback."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.python = sys.executable
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        self.authorize(True)
        self.set_known_host((folder / "host_key.pub").read_text())
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.set_python(self.python)
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f'ForceCommand PATH={self.bin}:/usr/bin:/bin; export PATH; eval "$SSH_ORIGINAL_COMMAND"\n'
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd needs this folder
        self.process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError("sshd did not start")

    def authorize(self, accepted):
        (self.folder / "authorized_keys").write_text((self.folder / "user_key.pub").read_text() if accepted else "")

    def set_known_host(self, key):
        self.known = self.folder / "known_hosts"
        self.known.write_text(f"far-end {key}" if key else "")

    def set_python(self, program):
        """Make ``python3`` run this program or script; None removes it."""
        wrapper = self.bin / "python3"
        wrapper.unlink(missing_ok=True)
        if program:
            wrapper.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            wrapper.chmod(0o755)

    def options(self, port=None, keys=None):
        config = self.folder / "config"
        keys = keys or f" IdentityFile {self.folder}/user_key\n IdentitiesOnly yes\n IdentityAgent none\n"
        config.write_text(
            f"Host far-end\n HostName 127.0.0.1\n Port {port or self.port}\n{keys} HostKeyAlias far-end\n"
            f" UserKnownHostsFile {self.known}\n GlobalKnownHostsFile none\n"
        )
        return ("-F", str(config))

    def close(self):
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.close()


def start(server, **options):
    return ssh.start("far-end", options=server.options(**options))


def uffdlab_files():
    # The folders in which an agent could leave files.  Other processes may create some at the same time.
    folders = ("/tmp", "/var/tmp", "/dev/shm", Path.home())
    return {path for folder in folders for path in Path(folder).glob("*uffd*")}


def test_an_agent_is_copied_started_and_removed(server):
    before, files_before = open_resources(), uffdlab_files()
    machine = start(server)
    agent = machine.hello.pid
    with Lab(machine=machine) as lab:
        assert lab.release == os.uname().release
        region = lab.map(pages=4)
        region.alias.fill(40)
        assert region.alias.read(2).result() == 42
        assert lab.exec(["sh", "-c", "exit 7"]).status == 7
        maps = Path(f"/proc/{agent}/maps").read_text()
        assert "/memfd:uffdlab" in maps
        assert "_native" not in maps
    assert gone_within(5, agent)
    assert open_resources() == before
    assert uffdlab_files() <= files_before


def test_a_machine_may_be_named_by_its_ssh_destination(server, monkeypatch, tmp_path):
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {" ".join(server.options())} "$@"\n')
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    with Lab(machine="ssh:far-end") as lab:
        assert lab.kernel == f"Linux {os.uname().release}"
        assert "in ssh" in repr(lab)
    for wrong in ("ssh:", "ssh:-oProxyCommand=true", "ssh:a b"):
        with pytest.raises(errors.UsageError, match="no destination for ssh"):
            Lab(machine=wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("key", r"accepts none of your keys.*ssh-copy-id"),
        ("unknown", "host key is not known here yet"),
        ("changed", "host key is not the one in known_hosts.*ssh-keygen -R"),
        ("port", "no ssh server answers"),
    ],
)
def test_the_error_of_a_failed_ssh_connection_says_why(server, wrong, message):
    before = open_resources()
    port = free_port() if wrong == "port" else None
    if wrong == "key":
        server.authorize(False)
    elif wrong == "unknown":
        server.set_known_host("")
    elif wrong == "changed":
        server.set_known_host((server.folder / "user_key.pub").read_text())
    with pytest.raises(errors.MachineLost, match=f"^ssh far-end: .*{message}"):
        start(server, port=port)
    assert open_resources() == before


def reconfigure(server, old, new):
    path = server.folder / "sshd_config"
    path.write_text(path.read_text().replace(old, new))
    server.process.send_signal(signal.SIGHUP)
    time.sleep(1)


def test_no_password_is_asked_for(server, monkeypatch, tmp_path):
    # The server accepts passwords, and this program would supply one: ssh must not run it.
    reconfigure(server, "PasswordAuthentication no\nKbd", "PasswordAuthentication yes\nKbd")
    server.authorize(False)
    asked = tmp_path / "asked"
    (tmp_path / "askpass").write_text(f"#!/bin/sh\ntouch {asked}\necho secret\n")
    (tmp_path / "askpass").chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(tmp_path / "askpass"))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    monkeypatch.setenv("DISPLAY", ":0")
    started = time.monotonic()
    with pytest.raises(errors.MachineLost, match=r"accepts none of your keys.*nobody can type a password here"):
        start(server)
    assert time.monotonic() - started < 20
    assert not asked.exists()
    plain = ["ssh", *server.options(), "far-end", "true"]
    subprocess.run(plain, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert asked.exists()  # with its usual options ssh runs it


def test_a_key_that_only_the_ssh_agent_has_is_used(server, monkeypatch, tmp_path):
    output = subprocess.run(
        ["ssh-agent", "-s", "-a", tmp_path / "agent"], capture_output=True, text=True, check=True
    ).stdout
    pid = int(re.search(r"SSH_AGENT_PID=(\d+)", output)[1])
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        options = server.options(keys=" IdentityFile none\n")
        with pytest.raises(errors.MachineLost, match="accepts none of your keys"):
            ssh.start("far-end", options=options)
        subprocess.run(["ssh-add", "-q", server.folder / "user_key"], check=True)
        with ssh.start("far-end", options=options) as machine:
            assert machine.ask(Ping(5)) == 5
    finally:
        os.kill(pid, signal.SIGTERM)


def test_an_unprivileged_remote_user_gets_a_userfaultfd(server):
    # The remote user is nobody, who may be allowed user-mode faults only.
    if os.geteuid() or not shutil.which("setpriv") or not Path("/usr/bin/python3").exists():
        pytest.skip("only root can become another user, by setpriv")
    server.set_python("setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/python3")
    with start(server) as machine, Lab(machine=machine) as lab:
        assert machine.hello.uid == 65534
        region = lab.map(pages=2)
        region.alias.fill(5)
        with lab.userfaultfd() as uffd:
            if Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() == "0":
                assert uffd.way == "userfaultfd(2) with UFFD_USER_MODE_ONLY"
            uffd.register(region, "minor")
            touch = region.read(1)
            uffd.read_fault()
            uffd.continue_(region)
            assert touch.result() == 6


def other_python(version):
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")) + [
        Path(path) for path in [shutil.which(f"python{version}")] if path
    ]
    return found[0] if found else None


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("2.7", "python3 is older than 3.4; the agent needs Python 3.11"),
        ("3.6", "python3 is older than 3.7; the agent needs Python 3.11"),
        ("3.9", r"its python3 is 3\.9\.\d+; the agent needs Python 3\.11"),
        ("3.13", r"its Python 3\.13\.\d+ has no cffi"),
    ],
)
def test_a_python_that_is_too_old_or_lacks_modules_is_refused(server, version, message):
    program = other_python(version)
    if program is None:
        pytest.skip(f"no Python {version} on this host")
    before = open_resources()
    server.set_python(program)
    with pytest.raises(errors.MachineError, match=message):
        start(server)
    assert open_resources() == before


def test_a_remote_machine_without_python_is_refused(server):
    server.set_python(None)
    reconfigure(server, ":/usr/bin:/bin", "")
    with pytest.raises(errors.MachineLost, match="has no python3 in PATH"):
        start(server)


@pytest.mark.parametrize(
    ("program", "awaited"),
    [
        ("/bin/sleep 60; :", "the python3 there to report its version"),
        ("/bin/sh -c 'echo $0; exec sleep 60' '{facts}'", "the python3 there to receive the agent and load it"),
    ],
)
def test_a_python_that_hangs_is_an_error_at_the_deadline(server, monkeypatch, program, awaited):
    facts = {**ssh_bootstrap._facts(), "system": "Linux"}
    server.set_python(program.replace("{facts}", json.dumps(facts)))
    monkeypatch.setattr(ssh, "_DEADLINE", 3.0)
    before = open_resources()
    with pytest.raises(errors.MachineTimeout, match=f"^far-end: waited 3 s for {awaited}: it hangs"):
        start(server)
    assert open_resources() == before


def test_text_printed_by_a_login_shell_is_reported(server):
    server.set_python(f"/bin/echo Welcome to this machine; exec {server.python}")
    with pytest.raises(errors.MachineError, match=r"writes to the stream before the agent: b'Welcome"):
        start(server)


def test_a_remote_kernel_without_userfaultfd_is_reported(server, tmp_path):
    # A seccomp filter refuses the system call and the device's ioctl, as a kernel without userfaultfd does.
    (tmp_path / "without.py").write_text(
        "import ctypes, os, struct, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "rules = [(0x20, 0, 0, 0), (0x15, 3, 0, 323), (0x15, 0, 3, 16), (0x20, 0, 0, 24), (0x15, 0, 1, 0xaa00),\n"
        "         (0x06, 0, 0, 0x50026), (0x06, 0, 0, 0x7fff0000)]\n"
        "code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *rule) for rule in rules))\n"
        "program = struct.pack('HxxxxxxQ', len(rules), ctypes.addressof(code))\n"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    server.set_python(f"{server.python} {tmp_path}/without.py")
    with start(server) as machine, Lab(machine=machine) as lab:
        lab.map(pages=1).alias.fill()
        with pytest.raises(
            errors.AgentError, match=r"(?s)no way to open a userfaultfd worked.*Function not implemented"
        ):
            lab.userfaultfd()


def test_a_killed_host_leaves_nothing_on_the_remote_machine(server):
    program = (
        "import sys, time\nfrom uffdlab.machines import ssh\nfrom uffdlab.uapi.protocol.agent import SpawnTarget\n"
        f"machine = ssh.start('far-end', options={server.options()!r})\n"
        "target = machine.ask(SpawnTarget(b'n' * 32, 0x10_0000_0000)).pid\n"
        "print(machine.hello.pid, target, flush=True)\ntime.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as host:
        pids = [int(pid) for pid in host.stdout.readline().split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        host.kill()
        assert gone_within(10, *pids)


class Proxy:
    """Forwards a connection to sshd.  After stop() no more bytes arrive, and neither end gets an error."""

    def __init__(self, port):
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._stopped = threading.Event()
        self._ends = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        far = socket.create_connection(("127.0.0.1", self._server_port))
        self._ends = [near, far]
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source, sink):
        try:
            while data := source.recv(1 << 16):
                if self._stopped.is_set():
                    return
                sink.sendall(data)
        except OSError:
            pass

    def stop(self):
        self._stopped.set()

    def close(self):
        for end in (self._listener, *self._ends):
            end.close()


def test_a_network_that_stops_is_reported_and_the_agent_ends(server, monkeypatch):
    monkeypatch.setattr(heartbeat, "INPUT_DEADLINE", 4.0)
    monkeypatch.setattr(heartbeat, "_INTERVAL", 0.5)
    proxy = Proxy(server.port)
    try:
        machine = ssh.start("far-end", options=(*server.options(proxy.port), "-o", "ServerAliveInterval=1"))
        agent = machine.hello.pid
        target = machine.ask(SpawnTarget(b"n" * 32, 0x10_0000_0000)).pid
        time.sleep(5)  # an idle connection stays open
        assert alive(agent)
        proxy.stop()
        with pytest.raises(errors.MachineTimeout):
            machine.ask(Ping(), deadline=1)
        assert gone_within(20, agent, target)  # without an end of file
        with pytest.raises(errors.MachineLost, match="connection was lost"):
            machine.ask(Ping(), deadline=60)
        machine.close()
    finally:
        proxy.close()
