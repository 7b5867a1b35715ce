"""Which box the VM of vm/Vagrantfile is made from.

The box that ``UFFDLAB_BOX`` names, if it is set. Else the project's own box, if vm/build-box has made it already: it
needs no network, and it is the tested one. Else Debian's, if Vagrant has it or can fetch it. Else the project's own,
which is made then. If the VM does not start from Debian's box, this is recorded in the cache, and that box is not tried
again::

    <cache>/box/catalog.json   the catalog of the project's own box
    <cache>/box/recipe         the hash of the vm/build-box that made it
    <cache>/box/refused        why the VM did not start from Debian's box, if it did not
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab import cachedir, errors, settings
from uffdlab.cachedir import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

    # Run(arguments, deadline, report) runs a command and returns its exit status and output.  lines=True: each line is
    # reported; on_tick=…: called several times a second.
    Run = Callable[..., tuple[int, str]]

OWN = "uffdlab/bookworm64"
DEBIAN = "debian/bookworm64"

_ASK = 120.0  # seconds for a query
_BUILD = 3600.0  # seconds for vm/build-box
_FETCH = 3600.0  # seconds to fetch a box
_FIRST_DATA_DEADLINE = 30.0  # seconds until the first data: a network may drop packets silently
_NO_DATA_DEADLINE = 600.0  # seconds without more data; this includes unpacking by Vagrant
_BOX_BEGUN = 256 << 10  # bytes: more than the server's metadata of the box
_REPORT_INTERVAL = 10.0  # seconds


class Boxes:
    """The choice of a box for a VM that does not exist yet.

    Parameters
    ----------
    build : Path
        The program vm/build-box.
    run : callable
        Runs `build` and vagrant.
    report : callable
        Called with the present step, and with the reason why a box is not used.
    """

    def __init__(self, build: Path, run: Run, report: Callable[[str], object]) -> None:
        self._build = build
        self._run = run
        self._report = report
        chosen = os.environ.get("VAGRANT_DEFAULT_PROVIDER")
        # The format of the box.  The QEMU provider takes libvirt's.
        self._format = "virtualbox" if chosen == "virtualbox" else "libvirt"
        self._folder = folder()

    def choose(self) -> str:
        """Return the name of a box that exists afterwards, or that the user has chosen and Vagrant fetches.

        Raises
        ------
        HostUnsupported
            There is no usable box.
        """
        if asked := settings.box():
            if asked == OWN:
                self._make()
            return asked
        if self._format == "libvirt" and self._made():
            return OWN
        why_not = self._refusal() or self._fetch_debian()
        if not why_not:
            return DEBIAN
        if self._format != "libvirt":
            raise errors.HostUnsupported(
                f"{DEBIAN} is not available for {self._format} ({why_not}), and vm/build-box makes boxes only for "
                "libvirt and QEMU",
                missing="box",
            )
        self._report(f"{DEBIAN} is not used ({why_not}): making a box of Debian's packages")
        self._make()
        return OWN

    def replaceable(self, box: str) -> bool:
        """Return whether another box can replace this one, which the user has not chosen, if the VM does not start."""
        return box == DEBIAN and not settings.box() and self._format == "libvirt"

    def refuse(self, error: errors.MachineError) -> None:
        """Record that the VM did not start from Debian's box, so that it is not chosen again."""
        text = f"The VM did not start from {DEBIAN}. Remove this file to try that box again.\n{error}\n"
        write_atomically(self._folder / "refused", text.encode())

    def _made(self) -> bool:
        # The same check as in vm/build-box.
        recipe = hashlib.sha256(self._build.read_bytes()).hexdigest()[:16]
        try:
            made = (self._folder / "recipe").read_text().strip()
            return made == recipe and (self._folder / "catalog.json").stat().st_size > 0
        except OSError:
            return False

    def _make(self) -> None:
        status, output = self._run([self._build], _BUILD, self._report, lines=True)
        if status:
            raise errors.HostUnsupported(f"vm/build-box could not make the box:\n{output}", missing="box")

    def _refusal(self) -> str:
        note = self._folder / "refused"
        return f"the VM did not start from it, see {note}" if note.exists() else ""

    def _fetch_debian(self) -> str:
        # Returns why it is not available; empty if Vagrant has it.
        status, output = self._run(["vagrant", "box", "list", "--machine-readable"], _ASK, self._report)
        if status == 0 and (DEBIAN, self._format) in _listed(output):
            return ""
        self._report(f"vagrant box add {DEBIAN}")
        progress = _DownloadProgress(self._report)
        try:
            status, output = self._run(
                ["vagrant", "box", "add", DEBIAN, "--provider", self._format],
                _FETCH,
                self._report,
                on_tick=progress.check,
            )
        except _Stalled as stalled:
            return str(stalled)
        except errors.MachineTimeout:
            return f"the download did not end within {_FETCH / 60:.0f} minutes"
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        last = lines[-1] if lines else f"vagrant ended with status {status}"
        return last.removeprefix("Error: ") if status else ""


class _Stalled(Exception):
    """No more data of a box arrives.  The message says for how long."""


class _DownloadProgress:
    """Reports how much of a box Vagrant has fetched.  Vagrant itself shows that only on a terminal."""

    def __init__(self, report: Callable[[str], object]) -> None:
        self._report = report
        self._folder = Path(os.environ.get("VAGRANT_HOME") or Path.home() / ".vagrant.d") / "tmp"
        self._last = self._bytes()  # an interrupted download may be there, which Vagrant continues
        self._received = 0
        self._since = self._reported = time.monotonic()

    def check(self) -> None:
        now, size = time.monotonic(), self._bytes()
        received = self._received + max(0, size - self._last)  # less if Vagrant starts again, or unpacks it
        begun = received >= _BOX_BEGUN
        if begun and received > self._received:
            self._since = now
        self._received, self._last = received, size
        deadline = _NO_DATA_DEADLINE if begun else _FIRST_DATA_DEADLINE
        if now - self._since > deadline:
            raise _Stalled(f"nothing received in {deadline:.0f} s")
        if begun and now - self._reported > _REPORT_INTERVAL:
            self._reported = now
            self._report(f"vagrant box add {DEBIAN}: {self._received >> 20} MiB received")

    def _bytes(self) -> int:
        total = 0
        for path in self._folder.glob("box*"):
            try:
                total += path.stat().st_size
            except OSError:
                continue  # it has just been unpacked
        return total


def folder() -> Path:
    """Return the folder where vm/build-box puts the project's own box."""
    return cachedir.folder("box")


def _listed(output: str) -> set[tuple[str, str]]:
    # Returns name and format of each box that Vagrant has.  A line is time,target,kind,value.
    found, name = set(), ""
    for line in output.splitlines():
        kind, _, value = line.partition(",")[2].partition(",")[2].partition(",")
        if kind == "box-name":
            name = value
        elif kind == "box-provider":
            found.add((name, value))
    return found
