"""Compilers and their analyzers report nothing about this project's C.  Code that cffi generates is not checked."""

import shutil

import pytest

from .compiling import BUILD_FILES, Extension, run

WARNINGS = [
    *("-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wstrict-prototypes"),
    *("-Wmissing-prototypes", "-Wundef", "-Wpointer-arith", "-Wwrite-strings", "-Wformat=2", "-Wvla"),
]
ANALYZERS = {
    "gcc": ["-fanalyzer", "-O2", "-c", "-o", "/dev/null"],
    "clang": ["--analyze", "-Xclang", "-analyzer-output=text", "-Xclang", "-analyzer-checker=core,unix,deadcode"],
}
MISTAKES = """
#include <stdlib.h>
unsigned char narrow(int wide) { return wide; }
int freed(void) { int *word = malloc(sizeof(*word)); if (!word) return 0; free(word); return *word; }
"""


def compiler(name):
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here; vm/packages.txt names its package")
    return name


@pytest.fixture(scope="module")
def extensions(tmp_path_factory):
    return [Extension(build_file, tmp_path_factory.mktemp("generated")) for build_file in BUILD_FILES]


def output(extensions, *command):
    """Return what the command prints about each source file."""
    return "".join(run(*command, *extension.flags, source) for extension in extensions for source in extension.sources)


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_the_compilers_report_no_warnings(extensions, name):
    assert output(extensions, compiler(name), "-c", "-o", "/dev/null", *WARNINGS) == ""


@pytest.mark.long
@pytest.mark.parametrize("name", ANALYZERS)
def test_the_analyzers_find_nothing(extensions, name):
    assert output(extensions, compiler(name), *ANALYZERS[name]) == ""


@pytest.mark.parametrize("name", ANALYZERS)
def test_the_compilers_report_an_inserted_mistake(tmp_path, name):
    source = tmp_path / "mistakes.c"
    source.write_text(MISTAKES)
    assert "conversion" in run(compiler(name), "-c", "-o", "/dev/null", *WARNINGS, source)
    assert "free" in run(name, *ANALYZERS[name], source)
