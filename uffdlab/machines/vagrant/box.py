"""Which box the VM of vm/Vagrantfile is made from.

What ``UFFDLAB_BOX`` names, if it is set. Else our own, if vm/build-box has made it already: nobody waits for a network
who has the box that is tested. Else Debian's, if Vagrant has it or can fetch it. Else our own, which is made then. A
Debian's box from which the VM did not come up is noted in the cache and not tried again::

    <cache>/box/catalog.json   names our own box;  recipe  the hash of the vm/build-box that made it
    <cache>/box/refused        why the VM did not come up from Debian's box, if it did not
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from uffdlab import cachedir, errors
from uffdlab.cachedir import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

    # Runs a command (its words, a deadline, whom to tell) and gives its exit status and what it said.  lines=True: each
    # line is told; on_tick=…: called several times a second.
    Run = Callable[..., tuple[int, str]]

OWN = "uffdlab/bookworm64"
DEBIAN = "debian/bookworm64"

_ASK = 120.0  # seconds for what only asks
_BUILD = 3600.0  # for vm/build-box
_FETCH = 3600.0  # for a box on its way
_FIRST = 30.0  # until something of it is here: a network may swallow what is sent
_STILL = 600.0  # without a byte more; Vagrant unpacks it in the end
_SOMETHING = 256 << 10  # bytes: of a box, and not of what a server says about its boxes
_TELL_EVERY = 10.0  # seconds


class Boxes:
    """The choice of a box for a VM that is not there yet.

    Parameters
    ----------
    build : Path
        The program vm/build-box.
    run : callable
        Runs it, and vagrant.
    tell : callable
        Is told what is waited for, and why a box is not taken.
    """

    def __init__(self, build: Path, run: Run, tell: Callable[[str], object]) -> None:
        self._build = build
        self._run = run
        self._tell = tell
        chosen = os.environ.get("VAGRANT_DEFAULT_PROVIDER")
        self._format = "virtualbox" if chosen == "virtualbox" else "libvirt"  # of the box; our provider takes that too
        self._folder = folder()

    def choose(self) -> str:
        """Give the name of a box, which is there then, or which Vagrant is to fetch as the user wants it.

        Raises
        ------
        HostUnsupported
            There is none.
        """
        if asked := os.environ.get("UFFDLAB_BOX"):
            if asked == OWN:
                self._make()
            return asked
        if self._format == "libvirt" and self._made():
            return OWN
        why_not = self._refusal() or self._get_debians()
        if not why_not:
            return DEBIAN
        if self._format != "libvirt":
            raise errors.HostUnsupported(
                f"{DEBIAN} is not to be had for {self._format} ({why_not}), and what vm/build-box makes is for libvirt "
                "and QEMU alone",
                missing="box",
            )
        self._tell(f"{DEBIAN} is not taken ({why_not}): making a box of Debian's packages")
        self._make()
        return OWN

    def replaceable(self, box: str) -> bool:
        """Tell whether there is another box for a VM that does not come up from this one, which nobody asked for."""
        return box == DEBIAN and not os.environ.get("UFFDLAB_BOX") and self._format == "libvirt"

    def refuse(self, error: errors.MachineError) -> None:
        """Note that the VM did not come up from Debian's box, which is not chosen any more."""
        said = f"The VM did not come up from {DEBIAN}. Remove this file to have that box tried again.\n{error}\n"
        write_atomically(self._folder / "refused", said.encode())

    def _made(self) -> bool:
        # As vm/build-box itself sees it.
        recipe = hashlib.sha256(self._build.read_bytes()).hexdigest()[:16]
        try:
            made = (self._folder / "recipe").read_text().strip()
            return made == recipe and (self._folder / "catalog.json").stat().st_size > 0
        except OSError:
            return False

    def _make(self) -> None:
        status, said = self._run([self._build], _BUILD, self._tell, lines=True)
        if status:
            raise errors.HostUnsupported(f"vm/build-box could not make the box:\n{said}", missing="box")

    def _refusal(self) -> str:
        note = self._folder / "refused"
        return f"the VM did not come up from it, see {note}" if note.exists() else ""

    def _get_debians(self) -> str:
        # Why it is not to be had; empty if it is here.
        status, said = self._run(["vagrant", "box", "list", "--machine-readable"], _ASK, self._tell)
        if status == 0 and (DEBIAN, self._format) in _listed(said):
            return ""
        self._tell(f"vagrant box add {DEBIAN}")
        arrival = _Arrival(self._tell)
        try:
            status, said = self._run(
                ["vagrant", "box", "add", DEBIAN, "--provider", self._format], _FETCH, self._tell, on_tick=arrival.look
            )
        except _Stalled as stalled:
            return str(stalled)
        except errors.MachineTimeout:
            return f"it was not here after {_FETCH / 60:.0f} minutes"
        lines = [line.strip() for line in said.splitlines() if line.strip()] or [f"vagrant ended with status {status}"]
        return lines[-1].removeprefix("Error: ") if status else ""


class _Stalled(Exception):
    """Nothing of a box comes any more; says for how long."""


class _Arrival:
    """Shows how much Vagrant has of a box that it fetches; Vagrant itself tells that to terminals alone."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._folder = Path(os.environ.get("VAGRANT_HOME") or Path.home() / ".vagrant.d") / "tmp"
        self._last = self._bytes()  # there may be one whose download was interrupted: Vagrant goes on where it was
        self._came = 0
        self._since = self._told = time.monotonic()

    def look(self) -> None:
        now, size = time.monotonic(), self._bytes()
        came = self._came + max(0, size - self._last)  # less when Vagrant begins anew, or unpacks it
        begun = came >= _SOMETHING
        if begun and came > self._came:
            self._since = now
        self._came, self._last = came, size
        patience = _STILL if begun else _FIRST
        if now - self._since > patience:
            raise _Stalled(f"nothing came in {patience:.0f} s")
        if begun and now - self._told > _TELL_EVERY:
            self._told = now
            self._tell(f"vagrant box add {DEBIAN}: {self._came >> 20} MiB have come")

    def _bytes(self) -> int:
        total = 0
        for path in self._folder.glob("box*"):
            try:
                total += path.stat().st_size
            except OSError:
                continue  # it has just been unpacked
        return total


def folder() -> Path:
    """Where vm/build-box puts our own box."""
    return cachedir.folder("box")


def _listed(said: str) -> set[tuple[str, str]]:
    # Name and format of each box that Vagrant has: time,target,kind,value
    found, name = set(), ""
    for line in said.splitlines():
        kind, _, value = line.partition(",")[2].partition(",")[2].partition(",")
        if kind == "box-name":
            name = value
        elif kind == "box-provider":
            found.add((name, value))
    return found
