"""Find the modules that a program needs, and their files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from uffdlab import errors
from uffdlab.machines import python_modules


def test_a_module_that_replaces_itself_in_sys_modules_is_found(tmp_path, monkeypatch):
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "other.py").touch()
    (package / "replaced.py").write_text(
        "import sys\nfrom some_package import other\nsys.modules['some_package.replaced'] = other\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = {name: (path, is_package) for name, path, is_package in python_modules.modules("some_package.replaced")}
    assert found["some_package"] == (package / "__init__.py", True)
    assert found["some_package.other"] == (package / "other.py", False)
    assert found["some_package.replaced"] == (package / "replaced.py", False)


def test_the_files_that_are_found_are_enough_to_import_the_modules(tmp_path):
    names = ("json", "collections.abc", "encodings.ascii")
    for name, path, is_package in python_modules.modules(*names):
        folder = tmp_path.joinpath(*name.split("."))
        copy = folder / path.name if is_package else folder.with_name(path.name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    script = (
        f"import sys; sys.path[:] = [{str(tmp_path)!r}]\nfor name in {names!r}: __import__(name)\nprint('imported')"
    )
    done = subprocess.run([sys.executable, "-ISB", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("imported\n", "")


def test_the_file_of_a_frozen_module_is_found():
    found = {name: path for name, path, _ in python_modules.modules("os")}
    assert found["os"] == Path(os.__file__)


def test_the_error_names_a_module_that_cannot_be_imported():
    with pytest.raises(errors.HostUnsupported, match="no_such_module"):
        python_modules.modules("no_such_module")
