"""The packages: their folders, their layers, and the modules that an import loads."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UFFDLAB = ROOT / "uffdlab"
PACKAGES = sorted(path.parent.name for path in UFFDLAB.glob("*/__init__.py"))
SUBPACKAGES = sorted(str(path.parent.relative_to(UFFDLAB)) for path in UFFDLAB.glob("*/**/__init__.py"))


def layers_of_the_linter():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (contract,) = (item for item in contracts if item["type"] == "layers" and item["containers"] == ["uffdlab"])
    assert contract["exhaustive"]
    assert "ignore_imports" not in contract
    return contract["layers"]


def test_the_diagram_of_the_design_has_the_layers_of_the_linter():
    text = (ROOT / "docs" / "design.md").read_text()
    (diagram,) = re.findall(r"^## Layers\n.*?^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [re.split(r"\s{2,}", line)[0] for line in diagram.splitlines()] == layers_of_the_linter()


def test_imports_for_types_are_checked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["importlinter"]["exclude_type_checking_imports"] is False


@pytest.mark.parametrize("package", SUBPACKAGES)
def test_a_package_has_its_folder_of_tests(package):
    assert list((ROOT / "tests" / package).glob("test_*.py"))


def test_subpackages_are_found():
    assert {*PACKAGES, "agent/witnesses", "widgets/_data", "machines/qemu"} <= {*SUBPACKAGES}


def test_a_test_of_javascript_has_the_name_of_the_file_that_it_tests():
    tests = {path.name.removesuffix(".test.js") for path in (ROOT / "tests" / "widgets-js").glob("*.test.js")}
    assert tests
    assert tests <= {path.stem for path in (UFFDLAB / "widgets" / "static").glob("*.js")}


def test_few_files_are_outside_the_packages():
    outside = [path for path in UFFDLAB.iterdir() if path.name != "__pycache__" and path.name not in PACKAGES]
    assert len(PACKAGES) > 10
    assert len(outside) <= 12


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_a_lab_is_imported_without_modules_that_few_labs_need():
    # A dataclass compiles its methods at import, which takes thirty times as long as to define a msgspec.Struct.
    loaded = loaded_by("import uffdlab.lab")
    assert {"uffdlab.lab", "uffdlab.target.userfaultfd", "msgspec"} <= loaded
    assert not loaded & {"dataclasses", "html", "random", "numpy", "asyncio", "uffdlab.target.capabilities"}
    assert not [name for name in loaded if name.startswith(("uffdlab.kernels", "uffdlab.widgets", "uffdlab.figures"))]


def test_a_kernel_is_looked_up_without_the_modules_that_build_or_unpack_one():
    loaded = loaded_by("import uffdlab.kernels.lookup")
    assert "uffdlab.kernels.supply" in loaded
    assert not loaded & {"lz4", "zstandard", "uffdlab.kernels.unpack", "uffdlab.kernels.code_size"}
