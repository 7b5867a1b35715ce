"""The wheel and the sdist: what they contain, and that they work without a checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from .test_packaging import ROOT, committed_files

# The tests need no network: the requirements of the build and of uffdlab come from this environment.
HERE = sysconfig.get_path("purelib")
pytestmark = pytest.mark.timeout(600)


def run(*command, cwd, **environment):
    """Run a command; return its output."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("UFFDLAB", "PYTHON"))}
    done = subprocess.run(
        command, cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_checkout(folder):
    """Copy the committed files, so that a build leaves nothing in the checkout."""
    for path in committed_files():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        copy.chmod(path.stat().st_mode)


def build(hook, source, folder):
    """Run a hook of the build backend on the folder `source`."""
    code = f"import sys; from setuptools.build_meta import {hook}; {hook}(sys.argv[1])"
    folder.mkdir()
    run(sys.executable, "-c", code, folder, cwd=source)


def install(wheel, folder):
    """Make a virtual environment with the wheel, and with the requirements of this one."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).split()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install"]
    run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    # A path in a .pth file is searched last, and the .pth files there are not read: the checkout stays out of reach.
    (Path(site) / "requirements.pth").write_text(f"{HERE}\n")


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """Return the folder with all that is built, once for all workers of pytest."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "wheel"
    with FileLock(f"{place}.lock"):
        if not (place / "ready").exists():
            copy_checkout(place / "checkout")
            build("build_sdist", place / "checkout", place / "sdist")
            (sdist,) = (place / "sdist").iterdir()
            run("tar", "-xf", sdist, cwd=place)
            build("build_wheel", place / sdist.name.removesuffix(".tar.gz"), place / "dist")
            install(*(place / "dist").iterdir(), place / "installed")
            (place / "ready").touch()
    return place


@pytest.fixture(scope="session")
def unpacked(place):
    """Return the folder of the unpacked sdist, from which the wheel was built."""
    (sdist,) = (place / "sdist").iterdir()
    return place / sdist.name.removesuffix(".tar.gz")


@pytest.fixture(scope="session")
def wheel(place):
    """Return the path of the wheel."""
    (wheel,) = (place / "dist").iterdir()
    return wheel


@pytest.fixture(scope="session")
def installed(place):
    """Return the folder of the virtual environment in which the wheel is installed."""
    return place / "installed"


def test_the_wheel_is_for_any_python_since_3_11(wheel):
    assert re.fullmatch(r"uffdlab-[^-]+-cp311-abi3-linux_x86_64\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
    assert sorted(libraries) == ["uffdlab/agent/_native.abi3.so", "uffdlab/bulk/_bulk.abi3.so"]


def test_the_wheel_has_every_file_that_the_package_reads(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    wanted = set()
    for path in committed_files():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("uffdlab/"):
            wanted.add(name)
        elif name.startswith(("kernel-patch/", "notebooks/", "vm/")):
            wanted.add(f"uffdlab/data/{name}")
    assert len(wanted) > 300
    assert wanted - files == set()
    generated = {name for name in files - wanted if ".dist-info/" not in name and ".data/data/share/man/" not in name}
    assert generated == {"uffdlab/agent/_native.abi3.so", "uffdlab/bulk/_bulk.abi3.so"}


def test_the_sdist_has_every_committed_file(unpacked):
    names = [path.relative_to(ROOT).as_posix() for path in committed_files()]
    missing = {name for name in names if not (unpacked / name).exists()}
    assert {name for name in missing if not name.startswith((".ci/", ".git"))} == set()


def test_the_description_has_no_relative_link(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert "Description-Content-Type: text/markdown" in metadata
    assert "make demo" in metadata
    assert re.findall(r"\]\((?!https?:)[^)]*\)", metadata) == []


def test_the_command_lists_the_kernels(installed, tmp_path):
    listed = run(installed / "bin" / "uffdlab", "kernel", "list", cwd=tmp_path, UFFDLAB_CACHE=str(tmp_path / "cache"))
    for kernel in ("6.1-base", "6.1-as-posted", "6.1-series", "debian/trixie"):
        assert kernel in listed


def test_the_man_pages_are_where_man_finds_those_of_a_command_in_the_path(installed):
    names = {path.name for path in (installed / "share" / "man" / "man1").iterdir()}
    assert names == {path.name for path in (ROOT / "docs" / "man").iterdir()}
    assert "uffdlab.1" in names


def test_the_installed_package_is_that_of_the_wheel(installed, tmp_path):
    code = "import uffdlab.agent._native, uffdlab.bulk._bulk as bulk; print(uffdlab.__file__, bulk.__file__)"
    for path in run(installed / "bin" / "python", "-c", code, cwd=tmp_path).split():
        assert Path(path).is_relative_to(installed)


def test_every_kernel_has_its_patches_and_configuration(installed, tmp_path):
    code = """
from uffdlab.kernels.catalogue import default_file, load
print(default_file())
kernels = load(default_file())
for name in ("6.1-base", "6.1-as-posted", "6.1-series", "6.1-series+debug"):
    files = kernels[name].patches + kernels[name].config
    print(name, len(files), all(each.is_file() for each in files))
"""
    place, *kernels = run(installed / "bin" / "python", "-c", code, cwd=tmp_path).splitlines()
    assert Path(place).is_relative_to(installed)
    assert [line.split()[2] for line in kernels] == ["True"] * 4


def test_every_widget_finds_its_assets(installed, tmp_path):
    code = """
import uffdlab.widgets as widgets
from uffdlab.widgets import _assets
found = [each for each in vars(widgets).values() if isinstance(each, type) and getattr(each, "_esm", None)]
print(len(found), min(len(str(each._esm)) for each in found), len(list(_assets.HERE.glob("*.js"))))
"""
    widgets, shortest, files = map(int, run(installed / "bin" / "python", "-c", code, cwd=tmp_path).split())
    assert widgets >= 3
    assert shortest > 500
    assert files == len(list((ROOT / "uffdlab" / "widgets" / "static").glob("*.js")))


def test_a_lab_of_this_host_runs_from_the_wheel(installed, tmp_path):
    code = """
from uffdlab import Lab
with Lab(machine="local") as lab:
    region = lab.map(pages=4, memory="anon")
    region.write(1, 7)
    print(region.snapshot("pagemap").present.tolist())
"""
    printed = run(installed / "bin" / "python", "-W", "ignore", "-c", code, cwd=tmp_path)
    assert printed.splitlines()[-1] == "[False, True, False, False]"


def test_the_notebooks_are_copied_and_jupyterlab_is_started_on_the_copies(installed, tmp_path):
    version = run(installed / "bin" / "uffdlab", "lab", "mine", "--", "--version", cwd=tmp_path)
    assert re.fullmatch(r"4\.\d+\.\d+", version.split()[-1])
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["minor_wp.ipynb"]
    (tmp_path / "mine" / "minor_wp.ipynb").write_text("mine")
    again = run(installed / "bin" / "uffdlab", "lab", "mine", "--", "--version", cwd=tmp_path)
    assert "stays as it is" in again
    assert (tmp_path / "mine" / "minor_wp.ipynb").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_an_error_in_one_line(installed, tmp_path):
    (tmp_path / "file").touch()
    done = subprocess.run(
        [installed / "bin" / "uffdlab", "lab", tmp_path / "file"], capture_output=True, text=True, check=False
    )
    assert done.returncode
    assert "give another folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_sdist_runs_its_own_unit_tests(unpacked, wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".so"):
                (unpacked / name).write_bytes(archive.read(name))
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests/pte", "tests/uapi"]
    printed = run(*command, cwd=unpacked, PYTHONPATH=str(unpacked), PYTHONDONTWRITEBYTECODE="1")
    assert re.search(r"\d+ passed", printed)
    assert "failed" not in printed
