"""`make dist`: builds the sdist and the wheel into dist/, checks both, installs the wheel, runs an experiment with it.

The build and the new environment get their requirements from the package index, as a user's pip does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
KERNEL = "debian/trixie"  # needs no compiler


def step(title: str, *command: str | Path, cwd: Path = ROOT) -> None:
    """Print `title`, run the command, and end with its status if it fails."""
    print(f"\n=== {title}", flush=True)
    done = subprocess.run(command, cwd=cwd, check=False)
    if done.returncode:
        print(f"dist: {title} failed with exit status {done.returncode}", file=sys.stderr)
        sys.exit(1)


def main() -> None:
    """Build, check, install and run."""
    shutil.rmtree(DIST, ignore_errors=True)
    step("build", sys.executable, "-m", "build", "--outdir", DIST)
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
