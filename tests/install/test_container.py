"""The Dockerfile: built by podman on a bare Debian, then used as README says, without a network."""

import json
import re

import pytest

from tests.leftovers import wait_until

IMAGE, TOOLS = "uffdlab", "uffdlab-build"
READY = "print(urllib.request.urlopen('http://127.0.0.1:8888/api/status?token=' + sys.argv[1], timeout=10).status)"


@pytest.fixture(scope="session")
def image(containers, debian, checkout):
    """Build the image; return its name."""
    debian("bookworm")
    containers.build(checkout, IMAGE)
    return IMAGE


@pytest.fixture(scope="session")
def inside(containers, image):
    """Return a function that runs a command in a container."""
    with containers.container(image, "--network=none") as inside:
        yield inside


def test_it_runs_with_default_capabilities_as_an_ordinary_user(inside):
    assert inside("id", "--user").strip() == "1000"
    status = inside("cat", "/proc/self/status")
    assert re.search(r"CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"Seccomp:\s+2$", status, re.MULTILINE)  # podman's filter, which refuses userfaultfd(2)
    assert " 65536 " in inside("df", "--block-size=1024", "/dev/shm")


def test_the_kernels_of_debian_and_of_the_notebook_are_inside(inside):
    listed = dict(line.split()[:2] for line in inside("uffdlab", "kernel", "list").splitlines())
    there = {name for name, release in listed.items() if release != "not"}
    assert there == {
        *("debian/bookworm", "debian/trixie", "debian/trixie-backports"),
        *("6.1-as-posted", "6.1-series"),
    }


def test_nothing_is_missing_in_it(inside):
    found = json.loads(inside("uffdlab", "doctor", "--json"))
    assert found["ok"]
    lines = {line["name"]: line for line in found["lines"]}
    assert lines["KVM"]["state"] == "optional"
    assert "6.1-series" in lines["kernels"]["found"]


def test_the_notebook_runs_without_a_network(inside):
    inside("uffdlab", "notebook", "notebooks/minor_wp.ipynb", "minor_wp.html")
    page = inside("cat", "minor_wp.html")
    assert "As posted: pages 0–7 by CONTINUE with DONTWAKE|WP" in page


def test_its_own_command_serves_jupyterlab_on_the_documented_port(containers, image):
    dockerfile = json.loads(containers.podman("image", "inspect", image))[0]
    assert list(dockerfile["Config"]["ExposedPorts"]) == ["8888/tcp"]
    with containers.container(image, "--network=none", command=dockerfile["Config"]["Cmd"]) as inside:
        log = wait_until(lambda: re.search(r"token=(\w+)", inside.log()), 60)
        assert inside("python3", "-c", f"import sys, urllib.request; {READY}", log[1]).strip() == "200"
        assert "00000000:22B8" in inside("cat", "/proc/net/tcp")  # port 8888 of every address
        assert "minor_wp.ipynb" in inside("ls", "notebooks")


@pytest.mark.parametrize("command", [["jupyterhub-singleuser", "--version"], ["jupyter", "notebook", "--version"]])
def test_jupyterhub_and_binder_can_start_their_servers(inside, command):
    assert re.search(r"^\d+\.", inside(*command), re.MULTILINE)


def test_the_devcontainer_sets_up_a_checkout(containers, image, checkout):
    assert image
    given = json.loads((checkout / ".devcontainer" / "devcontainer.json").read_text())
    containers.build(checkout, TOOLS, f"--target={given['build']['target']}")
    where = [f"--volume={checkout}:/workspaces/uffdlab", "--workdir=/workspaces/uffdlab"]
    with containers.container(TOOLS, *where, command=["sleep", "infinity"]) as inside:
        inside("sh", "-c", given["postCreateCommand"])
        inside(".venv/bin/uffdlab", "run", "minor_wp", "6.1-series")
