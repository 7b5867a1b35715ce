"""Containers with a bare Debian, made by mmdebstrap from packages and run by podman.  No image is downloaded.

A base image has the name of the official one that it stands for, and of this host only what any host of its network
needs: the mirror, the certificates, pip's index.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path

from uffdlab.kernels import apt

CERTIFICATES = Path("/usr/local/share/ca-certificates")
_MINUTE = 60.0
# Podman asks for the greatest limits that there are, which a host without CAP_SYS_RESOURCE refuses.
_LIMITS = ["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"]


class CommandFailed(AssertionError):
    """A command ended with another status than 0; the message has what it printed."""


def run(*command, deadline=10 * _MINUTE, **options):
    """Run a command; return what it printed, standard error included."""
    done = subprocess.run(
        [str(each) for each in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=deadline,
        check=False,
        **options,
    )
    if done.returncode:
        raise CommandFailed(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout[-8000:]}")
    return done.stdout


class Containers:
    """Podman with its images and containers in `folder`, away from those of the user."""

    def __init__(self, folder):
        self._folder = folder
        self._options = ["--root", folder / "storage", "--runroot", folder / "run", "--runtime", "runc"]
        self._options += ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]

    def close(self):
        """Unmount what podman leaves mounted, so that `make clean` can remove the folder; the images stay."""
        mounted = self._folder / "storage" / "overlay"
        if mounted.is_mount():
            run("umount", mounted)

    def podman(self, *arguments, deadline=10 * _MINUTE):
        """Run podman; return its output."""
        return run("podman", *self._options, *arguments, deadline=deadline)

    def make_debian(self, suite, image):
        """Make the base image of a Debian suite, if it is not there: its smallest variant, and certificates."""
        if image in self.podman("images", "--format={{.Repository}}:{{.Tag}}").split():
            return
        mirrors = apt.mirrors_of_this_machine()
        suites = [suite, f"{suite}-updates", f"{suite}-security"]
        sources = "".join(mirrors.line(each, apt.keyring()) for each in suites)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            archive, pip = Path(folder) / "root.tar", Path(folder) / "pip.conf"
            pip.write_text(_settings_of_pip())
            hooks = [f"--customize-hook=upload {pip} /etc/pip.conf"]
            if any(CERTIFICATES.glob("*.crt")):
                hooks += [f"--customize-hook=copy-in {CERTIFICATES} {CERTIFICATES.parent}"]
                hooks += ['--customize-hook=chroot "$1" update-ca-certificates']
            command = ["mmdebstrap", "--variant=minbase", "--include=ca-certificates", *hooks, suite, archive, "-"]
            (Path(folder) / "sources").write_text(sources)
            with (Path(folder) / "sources").open() as file:
                done = subprocess.run(
                    command, stdin=file, capture_output=True, text=True, check=False, timeout=10 * _MINUTE
                )
            if done.returncode:
                raise CommandFailed(f"mmdebstrap {suite}: {done.stderr[-4000:]}")
            self.podman("import", archive, image)

    def build(self, context, tag, *options, deadline=45 * _MINUTE):
        """Build the Dockerfile of the folder `context`; return the image's size in bytes."""
        where = ["--pull=never", "--network=host", "--isolation=chroot", "--tag", tag]
        self.podman("build", *where, *options, context, deadline=deadline)
        return json.loads(self.podman("image", "inspect", tag))[0]["Size"]

    @contextlib.contextmanager
    def container(self, image, *options, command=()):
        """Start a container, by default with the network of this host; yield it, and remove it."""
        given = [*([] if any(each.startswith("--network=") for each in options) else ["--network=host"]), *options]
        name = self.podman("run", "--detach", "--shm-size=64m", *_LIMITS, *given, image, *command).split()[-1]
        try:
            yield Container(self, name)
        finally:
            self.podman("rm", "--force", "--time=5", name)


class Container:
    """A running container."""

    def __init__(self, containers, name):
        self._containers = containers
        self._name = name

    def __call__(self, *command, user=None, deadline=10 * _MINUTE):
        """Run a command in it, as `user` or the image's own; return its output, standard error included."""
        given = [] if user is None else [f"--user={user}"]
        return self._containers.podman("exec", *given, self._name, *command, deadline=deadline)

    def copy(self, source, target):
        """Copy a file or a folder of this host into it; it belongs to root there."""
        self._containers.podman("cp", source, f"{self._name}:{target}")

    def log(self):
        """Return what its own command has printed."""
        return self._containers.podman("logs", self._name)


def _settings_of_pip():
    listed = run("python3", "-m", "pip", "config", "list")
    lines = dict(line.split("=", 1) for line in listed.splitlines() if line.startswith(("global.", ":env:.")))
    wanted = {name: value.strip("'") for name, value in lines.items()}
    index = wanted.get(":env:.index-url", wanted.get("global.index-url"))
    settings = "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n"
    return settings + (f"index-url = {index}\n" if index else "")
