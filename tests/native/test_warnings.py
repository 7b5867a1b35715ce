"""What compilers and their analyzers say of our C: nothing.  What cffi generates is not ours."""

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
PLANTED = """
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
    return [Extension(each, tmp_path_factory.mktemp("generated")) for each in BUILD_FILES]


def output(extensions, *command):
    """What it says of each of our files."""
    return "".join(run(*command, *extension.flags, source) for extension in extensions for source in extension.sources)


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_no_warnings(extensions, name):
    assert output(extensions, compiler(name), "-c", "-o", "/dev/null", *WARNINGS) == ""


@pytest.mark.long
@pytest.mark.parametrize("name", ANALYZERS)
def test_the_analyzers_find_nothing(extensions, name):
    assert output(extensions, compiler(name), *ANALYZERS[name]) == ""


@pytest.mark.parametrize("name", ANALYZERS)
def test_the_compilers_would_report_a_planted_mistake(tmp_path, name):
    planted = tmp_path / "planted.c"
    planted.write_text(PLANTED)
    assert "conversion" in run(compiler(name), "-c", "-o", "/dev/null", *WARNINGS, planted)
    assert "free" in run(name, *ANALYZERS[name], planted)
