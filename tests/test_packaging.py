"""Dependencies, commands, public names and files of the repository agree with its documents."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

import uffdlab

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Packages that have another name in conda-forge than in PyPI.
CONDA_NAMES = {"msgpack": "msgpack-python", "playwright": "playwright-python", "qemu.qmp": "python-qemu-qmp"}


def committed_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).exists()]


def conda_spelling(requirement):
    name, version = re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", requirement).groups()
    return CONDA_NAMES.get(name, name) + version


def test_environment_has_the_dependencies_of_pyproject():
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = (each["pip"] for each in listed if isinstance(each, dict))
    plain = [each for each in listed if isinstance(each, str)]
    assert sorted(plain) == sorted(["pip", f"python{PROJECT['requires-python']}", *map(conda_spelling, wanted)])
    assert pip == ["--editable ."]


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_every_imported_package_is_a_declared_dependency():
    provided_by = importlib.metadata.packages_distributions()
    declared = {re.match(r"[A-Za-z0-9._-]+", each)[0].lower() for each in PROJECT["dependencies"]}
    declared |= set(PROJECT["optional-dependencies"]) - {"dev"}  # an extra has the name of the package that it adds
    ours = {*sys.stdlib_module_names, "uffdlab", "_cffi_backend"}
    for path in (ROOT / "uffdlab").rglob("*.py"):
        for name in {each.split(".")[0] for each in imported_names(path)} - ours:
            assert declared & {each.lower() for each in provided_by.get(name, [])}, f"{path.relative_to(ROOT)}: {name}"


def test_the_agent_imports_only_modules_of_the_initramfs():
    allowed = {*sys.stdlib_module_names, "msgpack", "_cffi_backend"}
    ours = {"uffdlab.agent", "uffdlab.uapi"}
    seen = 0
    sources = [path for package in ("agent", "uapi") for path in (ROOT / "uffdlab" / package).rglob("*.py")]
    for path in sources:
        # These are for the build or for the host; `make check` forbids the agent to import them.
        if path.name in {"_native_build.py", "messages.py"} or path.parent.name == "protocol":
            continue
        for name in imported_names(path):
            seen += 1
            permitted = (
                name.split(".")[0] in allowed
                or name == "uffdlab"
                or any(f"{name}.".startswith(f"{each}.") for each in ours)
            )
            assert permitted, f"{path.relative_to(ROOT)} imports {name}"
            assert not name.startswith("uffdlab.uapi.protocol"), f"{path.relative_to(ROOT)}: there is no msgspec"
    assert seen > 10


# Programs of users depend on these names: an addition or removal belongs in CHANGELOG.md.
PUBLIC_NAMES = [
    "AgentError",
    "Fault",
    "FaultUnresolved",
    "IoctlError",
    "KernelError",
    "Lab",
    "LabClosed",
    "MachineError",
    "PageRange",
    "ProgramError",
    "Region",
    "Snapshot",
    "State",
    "TargetLost",
    "Touch",
    "TouchFailed",
    "UffdlabError",
    "UsageError",
    "Userfaultfd",
    "close_all",
    "compare",
    "labs",
]


def test_public_names_are_these():
    assert uffdlab.__all__ == PUBLIC_NAMES


def test_versions_agree():
    assert uffdlab.__version__ == PROJECT["version"]


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_public_names_have_a_docstring(name):
    assert (getattr(uffdlab, name).__doc__ or "").strip()


def make_targets():
    return set(re.findall(r"^([a-z][a-z -]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documented_make_targets_exist(document):
    targets = {target for group in make_targets() for target in group.split()}
    named = re.findall(r"`make ([a-z-]+)|^\s*make ([a-z-]+)", (ROOT / document).read_text(), re.MULTILINE)
    assert named
    assert {"".join(each) for each in named} <= targets


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documented_files_exist(document):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", (ROOT / document).read_text())
    for link in map("".join, links):
        if "://" not in link:
            assert (ROOT / link).exists(), f"{document} points to {link}"


def test_public_names_are_documented():
    text = (ROOT / "README.md").read_text()
    assert [name for name in uffdlab.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_readme_runs_the_example_of_the_design():
    def statements(document):
        (block,) = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
        code = [line.split("  #")[0].strip() for line in block.splitlines()]
        return [line for line in code if line and line != "import uffdlab"]

    assert statements("README.md") == statements("docs/design.md")


def test_help_lists_the_documented_targets():
    output = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"demo", "lab", "test", "check", "bench", "clean", "help"} <= set(
        re.findall(r"^  ([a-z]+) ", output, re.MULTILINE)
    )


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(path):
    notebook = json.loads(path.read_text())
    nbformat.validate(notebook)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    # JupyterLab writes the version of Python into a notebook that it opens.  With that of Debian 12, where the project
    # runs, an opened notebook is not "unsaved", and JupyterLab saves nothing into the checkout by itself.
    assert notebook["metadata"]["language_info"]["version"] == "3.11.2"


def test_every_committed_file_has_a_known_type_and_size():
    known = re.compile(r"(\.(1|c|config|css|h|in|ipynb|js|json|md|patch|png|py|pyi|rb|svg|toml|txt|typed|yml))?")

    def unexpected(path):
        return not known.fullmatch(path.suffix) or path.stat().st_size > 1 << 20 or path.name.endswith("~")

    assert [path.relative_to(ROOT).as_posix() for path in committed_files() if unexpected(path)] == []


def test_the_top_level_has_no_file_that_a_command_left():
    names = {path.relative_to(ROOT).parts[0] for path in committed_files()}
    folders = {"benchmarks", "binder", "docs", "kernel-patch", "notebooks", "tests", "uffdlab", "vm"}
    files = {"CHANGELOG.md", "CONTRIBUTING.md", "Dockerfile", "LICENSE", "MANIFEST.in", "Makefile", "README.md"}
    built_from = {"environment.yml", "pyproject.toml", "setup.py"}
    assert {name for name in names if not name.startswith(".")} == folders | files | built_from
