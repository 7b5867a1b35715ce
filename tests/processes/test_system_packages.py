"""The packages of each distribution."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from uffdlab.processes import system_packages


@pytest.mark.parametrize(
    ("release", "manager"),
    [
        ({"ID": "debian"}, "apt"),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "apt"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf"),
        ({"ID": "arch"}, "pacman"),
        ({"ID": "opensuse-tumbleweed", "ID_LIKE": "opensuse suse"}, "zypper"),
        ({"ID": "nixos"}, ""),
        ({}, ""),
    ],
)
def test_the_package_manager_is_that_of_os_release(monkeypatch, release, manager):
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    monkeypatch.setenv("PATH", "")
    assert system_packages.manager() == manager
    advice = system_packages.how_to_install("gcc", "ld", "xz", "gelf.h")
    assert "gcc binutils" in advice
    if not manager:
        assert advice == "install what these packages of Debian have: gcc binutils xz-utils libelf-dev"


def test_a_host_without_os_release_has_the_manager_that_is_in_path(monkeypatch, tmp_path):
    def none():
        raise FileNotFoundError

    monkeypatch.setattr(platform, "freedesktop_os_release", none)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert system_packages.manager() == ""
    (tmp_path / "zypper").touch(mode=0o755)
    assert system_packages.manager() == "zypper"
    assert system_packages.distribution() == "an unknown distribution"


def test_what_no_package_is_known_to_have_is_told(monkeypatch):
    suse = {"ID": "opensuse-leap", "ID_LIKE": "suse opensuse", "PRETTY_NAME": "openSUSE Leap\x1b[2J 16"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: suse)
    assert system_packages.how_to_install("apt-get", "xz") == (
        "zypper install xz; no package of openSUSE Leap?[2J 16 is known that has apt-get"
    )
    assert system_packages.how_to_install("apt-get").startswith("no package of")


def test_debians_names_are_those_of_the_list_of_packages():
    text = (Path(__file__).parents[2] / "vm" / "packages.txt").read_text()
    listed = {row.split()[0] for row in text.splitlines() if row and not row.startswith("#")}
    named = {each.apt for each in system_packages._PACKAGES.values()}
    # build-essential has gcc, binutils and make; the others are on every Debian.
    assert named - listed == {"gcc", "binutils", "make", "tar", "apt", "dpkg"}
