"""Packages of Debian suites through a private apt root: no root, the system's sources untouched, signatures checked.

The mirror is the one that the machine's own apt uses; no host name is written here.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from uffdlab.cachedir import discard
from uffdlab.errors import HostUnsupported, SourceError
from uffdlab.kernels import host_checks
from uffdlab.processes.job import JobTimeout, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.kernels.progress import Progress

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_UPDATE_DEADLINE = 600.0  # s
_DOWNLOAD_DEADLINE = 3600.0  # s
_ASK_DEADLINE = 60.0  # s
# What a kernel package needs that holds the image, its config or modules. Since 7.1 the image package is a shell: the
# vmlinuz is in linux-binary-…, its config in linux-base-…, its modules in linux-modules-….
KERNEL_PARTS = re.compile(r"linux-(image|binary|base|modules|source)-\d")
_DEBIAN_SUITE = re.compile(r"(old)*stable|testing|unstable|sid|bullseye|bookworm|trixie|forky|duke")


@dataclass(frozen=True)
class Deb:
    """One package file, as the signed index of its suite describes it; `size` in bytes."""

    package: str
    version: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Resolved:
    """What a package name stands for today: its version, and the package files that make it up."""

    package: str
    version: str
    debs: tuple[Deb, ...]


class Archive(Protocol):
    """Where packages come from."""

    def resolve(
        self,
        package: str,
        suites: tuple[str, ...],
        root: Path,
        progress: Progress,
        *,
        follow: re.Pattern[str] = KERNEL_PARTS,
    ) -> Resolved:
        """Look up the newest version of `package` in `suites`, and of what it depends on as far as `follow` matches."""

    def download(self, found: Resolved, suites: tuple[str, ...], root: Path, progress: Progress) -> list[Path]:
        """Fetch the package files into `root`, verified."""


@dataclass(frozen=True)
class Mirrors:
    """The machine's mirrors of Debian: the main archive, and the one of security updates or an empty string."""

    main: str
    security: str

    def line(self, suite: str, keyring: Path) -> str:
        """Give the sources.list line for a suite, or an empty string if no mirror of this machine has it."""
        uri = self.security if suite.endswith("-security") else self.main
        return (
            f"deb [arch=amd64 signed-by={keyring} allow-insecure=no allow-weak=no] {uri} {suite} main\n" if uri else ""
        )


def mirrors_of_this_machine() -> Mirrors:
    """Read the mirrors from the machine's apt configuration.

    Raises
    ------
    HostUnsupported
        It has none of Debian.
    """
    fields = ("CREATED_BY", "REPO_URI", "RELEASE", "COMPONENT", "ORIGIN")
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "|".join(f"$({field})" for field in fields)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_ASK_DEADLINE,
        env=_environment(),
    )
    return choose_mirrors(asked.stdout)


def choose_mirrors(targets: str) -> Mirrors:
    """Pick the mirrors out of ``CREATED_BY|REPO_URI|RELEASE|COMPONENT|ORIGIN`` lines; errors as above."""
    main = security = ""
    for line in targets.splitlines():
        created_by, uri, release, component, origin = (*line.split("|"), "", "", "", "")[:5]
        suite = release.partition("/")[0].partition("-")[0]
        # Without fetched lists apt does not know the origin and prints the field's name.
        debian = origin == "Debian" if not origin.startswith("$(") else _DEBIAN_SUITE.fullmatch(suite) is not None
        if created_by != "Packages" or component != "main" or not debian or uri.startswith("cdrom:"):
            continue
        if release.endswith(("-security", "/updates")):
            security = security or uri
        else:
            main = main or uri
    if not main:
        raise HostUnsupported(
            "this machine's apt knows no mirror of Debian (asked: apt-get indextargets), and kernels come from there: "
            "add one to its sources, on Debian 12 `deb MIRROR bookworm main`",
            missing="a Debian mirror",
        )
    return Mirrors(main, security)


class DebianArchive:
    """Debian's archive, from this machine's mirror.

    Parameters
    ----------
    mirrors : Mirrors, optional
        Instead of the machine's own.
    keyring : Path
        Holds the keys that a suite's Release file may be signed with.
    """

    def __init__(self, mirrors: Mirrors | None = None, keyring: Path = KEYRING) -> None:
        self._mirrors = mirrors
        self._keyring = keyring

    def resolve(
        self,
        package: str,
        suites: tuple[str, ...],
        root: Path,
        progress: Progress,
        *,
        follow: re.Pattern[str] = KERNEL_PARTS,
    ) -> Resolved:
        """Fetch the suites' indexes and look `package` up, and what it depends on as far as `follow` matches.

        Raises
        ------
        SourceError
            A suite could not be fetched, its signature does not verify, or it has no such package.
        HostUnsupported
            No apt, no Debian mirror, or no keyring.
        """
        host_checks.require_apt()
        self._set_up(root, suites)
        progress.stage(f"package lists of {', '.join(suites)}", unit="bytes")
        lists = root / "lists"
        status, said = self._apt(
            root, ["apt-get", "-q", "update"], _UPDATE_DEADLINE, on_tick=lambda: progress.at(_bytes_in(lists))
        )
        if "No space left on device" in said:
            discard(root)
            raise host_checks.disk_full(root, f"package lists of {', '.join(suites)}")
        if status:
            raise SourceError(
                f"apt-get update for {', '.join(suites)} (private, signatures checked by {self._keyring}) failed:\n"
                f"{_complaints(said)}\n"
                "Check the network and the mirror in this machine's apt configuration, then try again"
            )
        debs: list[Deb] = []
        ask = [package]
        while ask:
            name = ask.pop(0)
            record = self._show(root, name, suites)
            debs.append(Deb(name, record["Version"], int(record["Size"]), record["SHA256"]))
            for clause in record.get("Depends", "").split(","):
                needed = clause.partition("|")[0].split()[:1]
                if needed and follow.match(needed[0]) and needed[0] not in {*ask, *(deb.package for deb in debs)}:
                    ask.append(needed[0])
        return Resolved(package, debs[0].version, tuple(debs))

    def download(self, found: Resolved, suites: tuple[str, ...], root: Path, progress: Progress) -> list[Path]:
        """Fetch the package files into ``root/debs``.

        Raises
        ------
        SourceError
            One could not be fetched, or is not what the signed index says.
        """
        host_checks.require_apt()
        self._set_up(root, suites)
        debs = root / "debs"
        discard(debs)
        debs.mkdir(parents=True)
        wanted = [f"{deb.package}={deb.version}" for deb in found.debs]
        progress.stage(f"fetching {found.package} {found.version}", sum(deb.size for deb in found.debs), "bytes")
        status, said = self._apt(
            root,
            ["apt-get", "-q", "download", *wanted],
            _DOWNLOAD_DEADLINE,
            cwd=debs,
            on_tick=lambda: progress.at(_bytes_in(debs)),
        )
        if "No space left on device" in said:
            raise host_checks.disk_full(debs, f"fetching {found.package}")
        if status:
            raise SourceError(
                f"apt-get download {' '.join(wanted)} failed:\n{_complaints(said)}\n"
                "Check the network and the mirror in this machine's apt configuration, then try again"
            )
        paths = []
        for deb in found.debs:
            # The mirror quotes ":" in versions as %3a, so look by the package's name alone.
            path = next(debs.glob(f"{deb.package}_*.deb"), None)
            if path is None or _sha256(path) != deb.sha256:
                raise SourceError(
                    f"{deb.package} {deb.version}: what the mirror gave is not what Debian's signed index says "
                    f"(SHA256 {deb.sha256}): try again, or use another mirror in this machine's apt configuration"
                )
            paths.append(path)
        return paths

    def _set_up(self, root: Path, suites: tuple[str, ...]) -> None:
        if not self._keyring.exists():
            raise HostUnsupported(
                f"{self._keyring}, which checks the signatures of Debian's suites, is not there: install the package "
                "debian-archive-keyring (`vm/install-packages demo` does)",
                missing="debian-archive-keyring",
            )
        if self._mirrors is None:
            self._mirrors = mirrors_of_this_machine()
        for folder in ("lists/partial", "cache/archives/partial", "state"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "sources.list").write_text("".join(self._mirrors.line(suite, self._keyring) for suite in suites))
        (root / "state" / "status").touch()
        (root / "apt.conf").write_text(_configuration(root))

    def _apt(
        self,
        root: Path,
        command: list[str],
        deadline: float,
        *,
        cwd: Path | None = None,
        on_tick: Callable[[], None] | None = None,
    ) -> tuple[int, str]:
        environment = {**_environment(), "APT_CONFIG": str(root / "apt.conf")}
        try:
            return run(command, deadline=deadline, cwd=cwd, env=environment, on_tick=on_tick)
        except JobTimeout:
            return 1, f"E: not finished after {deadline:.0f} s"

    def _show(self, root: Path, package: str, suites: tuple[str, ...]) -> dict[str, str]:
        status, said = self._apt(root, ["apt-cache", "show", "--no-all-versions", package], _ASK_DEADLINE)
        record = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", said, re.MULTILINE))
        if status or not {"Version", "Size", "SHA256"} <= record.keys():
            raise SourceError(
                f"{', '.join(suites)}: no package {package} (apt-cache show: {said.strip() or 'nothing'}): check the "
                "name and the suites in kernel-patch/kernels.toml"
            )
        return record


def _configuration(root: Path) -> str:
    # Read by apt before anything else, and through Dir::Etc instead of the system's own files: hooks and pins of the
    # system stay out, but the way to the mirror (proxies, certificates, Check-Valid-Until) is kept.
    dump = subprocess.run(
        ["apt-config", "dump"], capture_output=True, text=True, check=False, timeout=_ASK_DEADLINE, env=_environment()
    ).stdout
    transport = [
        line
        for line in dump.splitlines()
        if re.match(r"Acquire::(?!Languages|Allow|IndexTargets|CompressionTypes)", line, re.IGNORECASE)
    ]
    settings = {
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::sourcelist": root / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": root / "state",
        "Dir::State::status": root / "state" / "status",
        "Dir::State::lists": root / "lists",
        "Dir::Cache": root / "cache",
        "Dir::Cache::srcpkgcache": "",  # 40 MB a suite, to save a second at the next look-up
        "Dir::Log": root / "state",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Get::AllowUnauthenticated": "false",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::AllowWeakRepositories": "false",
        "Acquire::AllowDowngradeToInsecureRepositories": "false",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "30",
        "Acquire::https::Timeout": "30",
    }
    if os.geteuid() == 0:
        settings["APT::Sandbox::User"] = "root"  # _apt could not write into root's cache folder
    return "\n".join([*transport, *(f'{key} "{value}";' for key, value in settings.items()), ""])


def _environment() -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key != "LANGUAGE"}
    return {**environment, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def _complaints(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith(("E:", "W:", "Err:"))]
    return "\n".join(lines[:12] or said.splitlines()[-12:])


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # apt renames a file when it is whole
    return total


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
