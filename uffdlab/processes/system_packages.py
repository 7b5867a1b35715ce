"""The system packages that uffdlab needs, by the name that each distribution gives them, and how to install them.

For Debian, ``vm/packages.txt`` says what each use needs; a test compares both.
"""

from __future__ import annotations

import platform
import re
import shutil
from typing import NamedTuple


class _Names(NamedTuple):
    apt: str
    dnf: str
    pacman: str
    zypper: str


# What is missing, a command, header or file: the package that has it; empty if none is known.
_PACKAGES = {
    "qemu-system-x86_64": _Names("qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86", "qemu-x86"),
    "busybox": _Names("busybox-static", "busybox", "busybox", "busybox-static"),
    "gcc": _Names("gcc", "gcc", "gcc", "gcc"),
    "ld": _Names("binutils", "binutils", "binutils", "binutils"),
    "make": _Names("make", "make", "make", "make"),
    "bc": _Names("bc", "bc", "bc", "bc"),
    "flex": _Names("flex", "flex", "flex", "flex"),
    "bison": _Names("bison", "bison", "bison", "bison"),
    "patch": _Names("patch", "patch", "patch", "patch"),
    "tar": _Names("tar", "tar", "tar", "tar"),
    "xz": _Names("xz-utils", "xz", "xz", "xz"),
    "gelf.h": _Names("libelf-dev", "elfutils-libelf-devel", "libelf", "libelf-devel"),
    "git": _Names("git", "git", "git", "git"),
    "ssh": _Names("openssh-client", "openssh-clients", "openssh", "openssh-clients"),
    "vagrant": _Names("vagrant", "vagrant", "vagrant", "vagrant"),
    "apt-get": _Names("apt", "apt", "apt", ""),
    "apt-cache": _Names("apt", "apt", "apt", ""),
    "apt-config": _Names("apt", "apt", "apt", ""),
    "dpkg-deb": _Names("dpkg", "dpkg", "dpkg", ""),
    "debian-archive-keyring.gpg": _Names("debian-archive-keyring", "debian-keyring", "debian-archive-keyring", ""),
}
_INSTALL = {
    "apt": "apt-get install",
    "dnf": "dnf install",
    "pacman": "pacman -S",
    "zypper": "zypper install",
}
# The ID or an ID_LIKE of os-release(5): the package manager.
_MANAGERS = {
    "debian": "apt",
    "ubuntu": "apt",
    "fedora": "dnf",
    "rhel": "dnf",
    "centos": "dnf",
    "arch": "pacman",
    "suse": "zypper",
    "opensuse": "zypper",
}


def manager() -> str:
    """Return the package manager of this host, ``apt``, ``dnf``, ``pacman`` or ``zypper``; empty if it has another."""
    release = _os_release()
    for name in [release.get("ID", ""), *release.get("ID_LIKE", "").split()]:
        if name in _MANAGERS:
            return _MANAGERS[name]
    # A system without os-release, such as a bare root, still has its package manager.
    return next((each for each in _INSTALL if shutil.which(_INSTALL[each].split()[0])), "")


def distribution() -> str:
    """Return the name of this host's distribution, ``Debian GNU/Linux 12 (bookworm)``."""
    release = _os_release()
    # The name is shown in errors, and any program may have written it.
    return re.sub(r"[^ -~]", "?", release.get("PRETTY_NAME") or release.get("NAME") or "an unknown distribution")


def how_to_install(*missing: str) -> str:
    """Return what to do about missing commands or headers: a command line, or what cannot be installed.

    Parameters
    ----------
    missing : str
        Commands or headers, each one that this module knows.
    """
    here = manager()
    if not here:
        names = " ".join(dict.fromkeys(_PACKAGES[each].apt for each in missing))
        return f"install what these packages of Debian have: {names}"
    found = {each: getattr(_PACKAGES[each], here) for each in missing}
    packages = " ".join(dict.fromkeys(package for package in found.values() if package))
    advice = [f"{_INSTALL[here]} {packages}"] if packages else []
    none = [each for each, package in found.items() if not package]
    if none:
        advice.append(f"no package of {distribution()} is known that has {', '.join(none)}")
    return "; ".join(advice)


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
