"""Fetch packages of Debian suites through a private apt root.

This needs no root privileges, does not touch the system's apt sources, and checks signatures. The mirror is
``$UFFDLAB_MIRROR``, or else the one that the machine's own apt uses.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from uffdlab import settings
from uffdlab.cachedir import discard
from uffdlab.errors import HostUnsupported, SourceError
from uffdlab.kernels import host_checks
from uffdlab.processes import system_packages
from uffdlab.processes.job import JobTimeout, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from uffdlab.kernels.progress import Progress

# Debian's own name of the file, and the one that follows it.
_KEYRINGS = tuple(Path(f"/usr/share/keyrings/debian-archive-keyring.{end}") for end in ("gpg", "pgp"))

_UPDATE_DEADLINE = 600.0  # s
_DOWNLOAD_DEADLINE = 3600.0  # s
_ASK_DEADLINE = 60.0  # s
# Packages with parts of a kernel. Since 7.1 the image package is empty and depends on others: the vmlinuz is in
# linux-binary-…, its config in linux-base-…, its modules in linux-modules-….
KERNEL_PARTS = re.compile(r"linux-(image|binary|base|modules|source)-\d")
_DEBIAN_SUITE = re.compile(r"(old)*stable|testing|unstable|sid|bullseye|bookworm|trixie|forky|duke")


@dataclass(frozen=True)
class Deb:
    """One package file, as the signed index of its suite describes it. `size` is in bytes."""

    package: str
    version: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Resolved:
    """The version that a package name has in a suite now, and its package files."""

    package: str
    version: str
    debs: tuple[Deb, ...]

    @classmethod
    def of(cls, data: dict[str, Any]) -> Resolved:
        """Return the version that :func:`dataclasses.asdict` made `data` of.

        Raises
        ------
        ValueError, KeyError, TypeError
            `data` has another form.
        """
        return cls(data["package"], data["version"], tuple(Deb(**deb) for deb in data["debs"]))


class Archive(Protocol):
    """A source of packages."""

    def resolve(
        self,
        package: str,
        suites: tuple[str, ...],
        root: Path,
        progress: Progress,
        *,
        follow: re.Pattern[str] = KERNEL_PARTS,
    ) -> Resolved:
        """Look up the newest version of `package` in `suites`, with its dependencies whose names match `follow`."""

    def download(self, found: Resolved, suites: tuple[str, ...], root: Path, progress: Progress) -> list[Path]:
        """Fetch the package files into `root`, check them, and return their paths."""


@dataclass(frozen=True)
class Mirrors:
    """The machine's mirrors of Debian: the main archive and security updates. `security` is empty if there is none."""

    main: str
    security: str

    def line(self, suite: str, keys: Path) -> str:
        """Return the sources.list line for a suite, or an empty string if no mirror of this machine has it."""
        uri = self.security if suite.endswith("-security") else self.main
        return f"deb [arch=amd64 signed-by={keys} allow-insecure=no allow-weak=no] {uri} {suite} main\n" if uri else ""


def keyring() -> Path:
    """Return the path of the keys that sign Debian's suites.

    Raises
    ------
    HostUnsupported
        They are not installed.
    """
    found = next((path for path in _KEYRINGS if path.exists()), None)
    if found is None:
        raise HostUnsupported(
            f"{_KEYRINGS[0]} is missing; it holds the keys that sign Debian's suites: "
            f"{system_packages.how_to_install('debian-archive-keyring.gpg')}",
            missing="debian-archive-keyring",
        )
    return found


def mirrors_of_this_machine() -> Mirrors:
    """Return ``$UFFDLAB_MIRROR``, or else the mirrors in the machine's apt configuration.

    Raises
    ------
    HostUnsupported
        There is no mirror of Debian.
    UsageError
        ``$UFFDLAB_MIRROR`` is not an address.
    """
    main, security = settings.mirror()
    if main:
        return Mirrors(main, security)
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
    """Pick the mirrors from lines of ``CREATED_BY|REPO_URI|RELEASE|COMPONENT|ORIGIN``.

    Raises
    ------
    HostUnsupported
        The lines name no mirror of Debian.
    """
    main = security = ""
    for line in targets.splitlines():
        created_by, uri, release, component, origin = (*line.split("|"), "", "", "", "")[:5]
        suite = release.partition("/")[0].partition("-")[0]
        # Until it has fetched the package lists, apt does not know the origin and prints the field's name.
        debian = origin == "Debian" if not origin.startswith("$(") else _DEBIAN_SUITE.fullmatch(suite) is not None
        if created_by != "Packages" or component != "main" or not debian or uri.startswith("cdrom:"):
            continue
        if release.endswith(("-security", "/updates")):
            security = security or uri
        else:
            main = main or uri
    if not main:
        raise HostUnsupported(
            "kernels come from Debian, and this machine's apt knows no mirror of it (apt-get indextargets): set "
            "UFFDLAB_MIRROR to the address of one. Only uffdlab uses it: the system's package sources stay as they are",
            missing="a Debian mirror",
        )
    return Mirrors(main, security)


class DebianArchive:
    """Debian's archive, from this machine's mirror.

    Parameters
    ----------
    mirrors : Mirrors, optional
        By default the machine's own.
    keys : Path, optional
        File with the keys that may sign a suite's Release file, by default that of :func:`keyring`.
    """

    def __init__(self, mirrors: Mirrors | None = None, keys: Path | None = None) -> None:
        self._mirrors = mirrors
        self._keys = keys

    def resolve(
        self,
        package: str,
        suites: tuple[str, ...],
        root: Path,
        progress: Progress,
        *,
        follow: re.Pattern[str] = KERNEL_PARTS,
    ) -> Resolved:
        """Fetch the suites' indexes; look up `package` and its dependencies whose names match `follow`.

        Raises
        ------
        SourceError
            A suite could not be fetched, its signature does not verify, or it has no such package.
        HostUnsupported
            The host has no apt, no Debian mirror or no keyring.
        """
        host_checks.require_apt()
        self._set_up(root, suites)
        progress.stage(f"package lists of {', '.join(suites)}", unit="bytes")
        lists = root / "lists"
        status, output = self._apt(
            root, ["apt-get", "-q", "update"], _UPDATE_DEADLINE, on_tick=lambda: progress.at(_bytes_in(lists))
        )
        if "No space left on device" in output:
            discard(root)
            raise host_checks.disk_full(root, f"package lists of {', '.join(suites)}")
        if status:
            raise SourceError(
                f"apt-get update for {', '.join(suites)} (private, signatures checked by {self._keys}) failed:\n"
                f"{_error_lines(output)}\n"
                f"Check the network and the mirror {self._main}, then try again"
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
        """Fetch the package files into ``root/debs`` and return their paths.

        Raises
        ------
        SourceError
            A file could not be fetched, or its SHA256 differs from the signed index.
        """
        host_checks.require_apt()
        self._set_up(root, suites)
        debs = root / "debs"
        discard(debs)
        debs.mkdir(parents=True)
        wanted = [f"{deb.package}={deb.version}" for deb in found.debs]
        progress.stage(f"fetching {found.package} {found.version}", sum(deb.size for deb in found.debs), "bytes")
        status, output = self._apt(
            root,
            ["apt-get", "-q", "download", *wanted],
            _DOWNLOAD_DEADLINE,
            cwd=debs,
            on_tick=lambda: progress.at(_bytes_in(debs)),
        )
        if "No space left on device" in output:
            raise host_checks.disk_full(debs, f"fetching {found.package}")
        if status:
            raise SourceError(
                f"apt-get download {' '.join(wanted)} failed:\n{_error_lines(output)}\n"
                f"Check the network and the mirror {self._main}, then try again"
            )
        paths = []
        for deb in found.debs:
            # The mirror quotes ":" in versions as %3a, so search by the package's name alone.
            path = next(debs.glob(f"{deb.package}_*.deb"), None)
            if path is None or _sha256(path) != deb.sha256:
                raise SourceError(
                    f"{deb.package} {deb.version}: the mirror's file does not match Debian's signed index "
                    f"(SHA256 {deb.sha256}): try again, or set UFFDLAB_MIRROR to another mirror"
                )
            paths.append(path)
        return paths

    @property
    def _main(self) -> str:
        return self._mirrors.main if self._mirrors else ""

    def _set_up(self, root: Path, suites: tuple[str, ...]) -> None:
        keys = self._keys = self._keys or keyring()
        if self._mirrors is None:
            self._mirrors = mirrors_of_this_machine()
        for folder in ("lists/partial", "cache/archives/partial", "state"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "sources.list").write_text("".join(self._mirrors.line(suite, keys) for suite in suites))
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
        status, output = self._apt(root, ["apt-cache", "show", "--no-all-versions", package], _ASK_DEADLINE)
        record = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", output, re.MULTILINE))
        if status or not {"Version", "Size", "SHA256"} <= record.keys():
            raise SourceError(
                f"{', '.join(suites)}: no package {package} (apt-cache show: {output.strip() or 'nothing'}): check the "
                "name and the suites in kernel-patch/kernels.toml"
            )
        return record


def _configuration(root: Path) -> str:
    # apt reads this first (APT_CONFIG). Dir::Etc then hides the system's own files, so its hooks and pins do not apply.
    # The settings for access to the mirror (proxies, certificates, Check-Valid-Until) are copied from the system.
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
        "Dir::Cache::srcpkgcache": "",  # would take 40 MB for each suite, and save one second at the next look-up
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
        settings["APT::Sandbox::User"] = "root"  # the user _apt cannot write to root's cache folder
    return "\n".join([*transport, *(f'{key} "{value}";' for key, value in settings.items()), ""])


def _environment() -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key != "LANGUAGE"}
    return {**environment, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def _error_lines(output: str) -> str:
    lines = [line for line in output.splitlines() if line.startswith(("E:", "W:", "Err:"))]
    return "\n".join(lines[:12] or output.splitlines()[-12:])


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # apt renames a file when it is complete
    return total


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
