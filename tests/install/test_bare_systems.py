"""The wheel on a bare Debian 12 and 13, for a user without root: an experiment on a stock kernel ends with its result.

Each test writes sizes and times to build/install/NAME.json.
"""

import json
import time

import pytest

from uffdlab.kernels import apt

from .conftest import FOLDER
from .containers import run

USER = "1000"
KERNEL = "debian/trixie"


@pytest.fixture(scope="session")
def wheel(checkout, tmp_path_factory):
    """Build the wheel; return its path."""
    folder = tmp_path_factory.mktemp("wheel")
    run("python3", "-m", "venv", folder / "venv")
    run(folder / "venv" / "bin" / "pip", "wheel", "--no-deps", "--wheel-dir", folder, checkout)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture
def system(request, containers, debian, checkout, wheel):
    """Return a running system of a Debian suite, with the packages of a user of the wheel."""
    with containers.container(debian(request.param), command=["sleep", "infinity"]) as system:
        system.copy(checkout / "vm", "/opt/vm")
        system.copy(wheel, f"/opt/{wheel.name}")
        system("chmod", "a+r", f"/opt/{wheel.name}")
        system("/opt/vm/install-packages", "run")
        system("useradd", f"--uid={USER}", "--create-home", "student")
        yield system


def student(system, *commands):
    """Run commands of a shell as the student; return the output."""
    return system("sh", "-e", "-c", "\n".join(commands), user=USER)


# What `uffdlab doctor` says there before the first lab.
BARE = {
    **dict.fromkeys(["Python", "Jupyter", "QEMU", "busybox", "memory", "disk", "/dev/shm", "cache folder"], "ok"),
    "shared kernels": "ok",
    "kernels": "optional",
    "Debian's archive": "ok",
    "build tools": "optional",
    "Vagrant": "optional",
}


def states(system, *environment):
    """Return what `uffdlab doctor` says of each thing, without KVM, which depends on the host."""
    command = " ".join([*environment, "~/lab/bin/python -m uffdlab doctor --json"])
    printed = system("sh", "-c", f"{command} || true", user=USER)
    lines = {line["name"]: line for line in json.loads(printed)["lines"]}
    assert lines.pop("KVM")["state"] in {"ok", "optional"}
    return {name: line["state"] for name, line in lines.items()}


@pytest.mark.parametrize("system", ["bookworm", "trixie"], indirect=True)
def test_the_wheel_runs_an_experiment_on_a_stock_kernel(system, wheel, request):
    def step(name, *command):
        start = time.monotonic()
        printed = student(system, " ".join(command))
        seconds[name] = round(time.monotonic() - start, 1)
        return printed

    seconds = {}
    step("venv", "cd && python3 -m venv lab")
    step("pip install", f"~/lab/bin/pip install --only-binary=:all: /opt/{wheel.name}")
    assert states(system) == BARE
    assert states(system, "PATH=/none")["QEMU"] == "missing"
    assert KERNEL in step("kernel list", "~/lab/bin/uffdlab kernel list")
    result = step(f"run minor_wp {KERNEL}", f"~/lab/bin/uffdlab run minor_wp {KERNEL}")
    assert "64 of 64" in result, result
    assert states(system) == {**BARE, "kernels": "ok"}
    megabytes = {
        name: int(system("du", "--summarize", "--block-size=1M", path).split()[0])
        for name, path in {"environment": "/home/student/lab", "cache": "/home/student/.cache/uffdlab"}.items()
    }
    python = system("python3", "--version").split()[-1]
    (FOLDER / f"{request.node.callspec.id}.json").write_text(
        json.dumps({"python": python, "seconds": seconds, "megabytes": megabytes}, indent=2) + "\n"
    )


@pytest.mark.parametrize("system", ["bookworm"], indirect=True)
def test_a_system_whose_apt_knows_no_mirror_of_debian_as_on_ubuntu(system, wheel):
    mirrors = apt.mirrors_of_this_machine()
    system("sh", "-c", "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/*")
    system("sh", "-c", "rm /etc/os-release; printf 'ID=ubuntu\\nID_LIKE=debian\\n' >/etc/os-release")
    student(system, "cd && python3 -m venv lab", f"~/lab/bin/pip install --only-binary=:all: /opt/{wheel.name}")
    assert states(system)["Debian's archive"] == "missing"
    refused = student(system, f"! ~/lab/bin/uffdlab run minor_wp {KERNEL}")
    assert "UFFDLAB_MIRROR" in refused
    assert "Traceback" not in refused
    setting = f"UFFDLAB_MIRROR='{mirrors.main} {mirrors.security}'"
    assert states(system, setting)["Debian's archive"] == "ok"
    assert "64 of 64" in student(system, f"{setting} ~/lab/bin/uffdlab run minor_wp {KERNEL}")
    assert system("find", "/etc/apt", "-name", "*.list", "-o", "-name", "*.sources") == ""
