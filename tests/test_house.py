"""The packages: what lies where, what an import loads, and that docs/design.md shows the layers that are checked."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ROOT / "uffdlab"
PACKAGES = sorted(path.parent.name for path in HOUSE.glob("*/__init__.py"))
SUBPACKAGES = sorted(str(path.parent.relative_to(HOUSE)) for path in HOUSE.glob("*/**/__init__.py"))


def layers_of_the_linter():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = (
        each
        for each in project["tool"]["importlinter"]["contracts"]
        if each["type"] == "layers" and each["containers"] == ["uffdlab"]
    )
    assert contract["exhaustive"]
    assert "ignore_imports" not in contract
    return contract["layers"]


def test_the_diagram_of_the_design_is_what_the_linter_checks():
    text = (ROOT / "docs" / "design.md").read_text()
    (diagram,) = re.findall(r"^## Layers\n.*?^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [re.split(r"\s{2,}", line)[0] for line in diagram.splitlines()] == layers_of_the_linter()


def test_types_count_as_imports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["importlinter"]["exclude_type_checking_imports"] is False


@pytest.mark.parametrize("package", SUBPACKAGES)
def test_a_package_has_its_folder_of_tests(package):
    assert list((ROOT / "tests" / package).glob("test_*.py"))


def test_packages_within_packages_are_among_them():
    assert {*PACKAGES, "agent/witnesses", "widgets/_data", "machines/qemu"} <= {*SUBPACKAGES}


def test_a_test_of_javascript_has_the_name_of_the_file_that_it_tests():
    tests = {path.name.removesuffix(".test.js") for path in (ROOT / "tests" / "widgets-js").glob("*.test.js")}
    assert tests
    assert tests <= {path.stem for path in (HOUSE / "widgets" / "static").glob("*.js")}


def test_few_files_lie_beside_the_packages():
    beside = [path for path in HOUSE.iterdir() if path.name != "__pycache__" and path.name not in PACKAGES]
    assert len(PACKAGES) > 10
    assert len(beside) <= 12


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_a_lab_is_imported_without_what_few_labs_need():
    # A dataclass compiles its methods at import, which takes thirty times as long as to define a msgspec.Struct.
    loaded = loaded_by("import uffdlab.lab")
    assert {"uffdlab.lab", "uffdlab.target.userfaultfd", "msgspec"} <= loaded
    assert not loaded & {"dataclasses", "html", "random", "numpy", "asyncio", "uffdlab.target.capabilities"}
    assert not [name for name in loaded if name.startswith(("uffdlab.kernels", "uffdlab.widgets", "uffdlab.figures"))]


def test_a_kernel_from_the_cache_is_found_without_what_builds_or_unpacks_one():
    loaded = loaded_by("import uffdlab.kernels")
    assert "uffdlab.kernels.supply" in loaded
    assert not loaded & {"lz4", "zstandard", "uffdlab.kernels.unpack", "uffdlab.kernels.code_size"}
