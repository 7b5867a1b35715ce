"""vm/install-packages and vm/make-venv, with scripts in place of the package manager that record their commands."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ["bash", "cat", "dirname", "env", "grep", "mkdir", "readlink", "tail"]


@pytest.fixture
def machine(tmp_path):
    """A checkout with only the two scripts, and a PATH with only the programs that a test adds."""
    (tmp_path / "checkout" / "vm").mkdir(parents=True)
    for name in ("install-packages", "make-venv"):
        shutil.copy(ROOT / "vm" / name, tmp_path / "checkout" / "vm")
    (tmp_path / "checkout" / "vm" / "packages.txt").write_text(
        "# a comment\none demo,test one why\ntwo test <two.h> why\nthree lab - why\n"
    )
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))

    class Machine:
        checkout = tmp_path / "checkout"
        log = tmp_path / "log"

        def program(self, name, script):
            path = tmp_path / "bin" / name
            path.write_text(f"#!/bin/bash\n{script}\n")
            path.chmod(0o755)

        def debian(self, installed=(), *, user=0, apt_fails=False):
            self.program("id", f"echo {user}")
            self.program("dpkg-query", "".join(f"echo {package} installed\n" for package in installed))
            self.program("apt-get", f'echo "apt-get $*" >>{self.log}; echo "E: no network"; exit {int(apt_fails)}')

        def run(self, *arguments, **environment):
            return subprocess.run(
                [tmp_path / "checkout" / "vm" / arguments[0], *arguments[1:]],
                env={"PATH": str(tmp_path / "bin")} | environment,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=30,
                check=False,
            )

        def commands(self):
            return self.log.read_text().splitlines() if self.log.exists() else []

    return Machine()


def test_nothing_is_done_when_nothing_is_missing(machine):
    machine.debian(["one", "two"])
    done = machine.run("install-packages", "test")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.commands() == []


def test_root_installs_only_what_is_missing(machine):
    machine.debian(["one"])
    done = machine.run("install-packages", "test")
    assert done.returncode == 0
    update, install = machine.commands()
    assert update == "apt-get update"
    assert install.startswith("apt-get install --yes --no-install-recommends")
    assert install.endswith(" two")


def test_a_tool_that_no_package_installed_is_not_installed_again(machine):
    machine.debian()
    machine.program("one", "exit 0")
    machine.program("cc", "exit 0")
    assert machine.run("install-packages", "test").returncode == 0
    assert machine.commands() == []


def test_a_package_for_several_uses_is_installed_once(machine):
    machine.debian()
    assert machine.run("install-packages", "test", "lab").returncode == 0
    assert machine.commands()[1].endswith(" one two three")


def test_a_user_other_than_root_installs_with_sudo(machine):
    machine.debian(user=1000)
    machine.program("sudo", f'echo "sudo $*" >>{machine.log}; [ "$1" = -n ] && shift; exec "$@"')
    machine.program("true", "exit 0")
    assert machine.run("install-packages", "demo").returncode == 0
    assert "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get update" in machine.commands()


@pytest.mark.parametrize("sudo", [None, "exit 1"])
def test_without_sudo_the_command_to_run_is_printed(machine, sudo):
    machine.debian(["one"], user=1000)
    if sudo:
        machine.program("sudo", sudo)
    done = machine.run("install-packages", "test")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("apt-get update && apt-get install ")
    assert line.endswith(" two")
    assert machine.commands() == []


def test_the_output_of_a_failed_apt_is_shown(machine):
    machine.debian(apt_fails=True)
    done = machine.run("install-packages", "demo")
    assert done.returncode == 1
    assert "E: no network" in done.stderr
    assert "apt-get update && apt-get install" in done.stderr


def test_on_another_distribution_the_missing_tools_are_named(machine):
    machine.program("one", "exit 0")
    machine.program("cc", "exit 1")
    done = machine.run("install-packages", "test")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("contain: two")
    machine.program("cc", "exit 0")
    assert machine.run("install-packages", "test").returncode == 0


@pytest.mark.parametrize("arguments", [[], ["nonsense"]])
def test_a_missing_or_unknown_use_is_bad_usage(machine, arguments):
    machine.debian()
    assert machine.run("install-packages", *arguments).returncode == 2


def test_a_missing_python_is_reported(machine):
    for tool in ("sha256sum", "cut", "flock", "false"):
        machine.program(tool, f'exec {shutil.which(tool)} "$@"')
    for name in ("pyproject.toml", "setup.py", "uffdlab/agent/_native_build.py", "uffdlab/bulk/_build.py"):
        (machine.checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, machine.checkout / name)
    done = machine.run("make-venv", PYTHON="false")
    assert done.returncode == 1
    assert "no Python ≥ 3.11" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_every_package_of_the_list_is_well_formed():
    lines = [line.split() for line in (ROOT / "vm" / "packages.txt").read_text().splitlines() if line[0] != "#"]
    assert len({line[0] for line in lines}) == len(lines) > 10
    for _, uses, _, *why in lines:
        assert set(uses.split(",")) <= {"run", "demo", "lab", "test", "vagrant", "install"}
        assert why
