"""`make test-pythons`: the unit tests and one test in a guest, on each Python that uffdlab supports and this host has.

    python tests/pythons.py [INTERPRETER…]     (python3.11 to python3.14 if none)

Each gets a virtual environment in build/pythons.  All use the native parts of this checkout, which are built once, for
the stable ABI.  Ends with 1 if a Python failed, one that was named is not there, or none is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ["python3.11", "python3.12", "python3.13", "python3.14"]
TESTS = (["tests/run.py", "unit"], ["-m", "pytest", "-q", "tests/vm/test_readme.py"])
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def version(interpreter: str) -> str:
    """Return the version of an interpreter; empty if it does not run."""
    command = [interpreter, "-c", "import platform; print(platform.python_version())"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def requirements() -> list[str]:
    """Return what uffdlab and its tests require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["dev"]]


def test(interpreter: str, found: str) -> str:
    """Run the tests on an interpreter; return what failed, empty if nothing did."""
    folder = ROOT / "build" / "pythons" / found
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements()]
    if subprocess.run([interpreter, "-m", "venv", folder], check=False).returncode:
        return "no virtual environment"
    if subprocess.run(pip, check=False).returncode:
        return "the requirements cannot be installed"
    failed = [
        " ".join(command)
        for command in TESTS
        if subprocess.run([python, *command], cwd=ROOT, env=ENVIRONMENT, check=False).returncode
    ]
    return ", ".join(failed)


def main(named: list[str]) -> int:
    """Test each interpreter; return the exit status."""
    results = {}
    for interpreter in named or SUPPORTED:
        found = version(interpreter)
        print(f"\n=== {interpreter}: {found or 'not on this host'}", flush=True)
        results[interpreter] = test(interpreter, found) if found else None
    print()
    for interpreter, failed in results.items():
        outcome = "not on this host" if failed is None else f"failed: {failed}" if failed else "ok"
        print(f"{interpreter:<12} {outcome}")
    absent = [failed for failed in results.values() if failed is None]
    return int(any(results.values()) or (bool(absent) if named else len(absent) == len(results)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
