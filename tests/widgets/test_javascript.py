"""The widgets' JavaScript, one module at a time, by vitest (tests/widgets-js)."""

import json
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "widgets-js"


@pytest.mark.timeout(700)
def test_the_javascript_tests_pass():
    needed = json.loads((FOLDER / "package.json").read_text())["devDependencies"]
    if not all((FOLDER / "node_modules" / name).exists() for name in needed):
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(install, cwd=FOLDER, check=True, timeout=300)
    done = subprocess.run(
        ["npx", "vitest", "run"], cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
