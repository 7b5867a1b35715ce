"""kernels.toml is read, and mistakes in it are reported."""

from __future__ import annotations

import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.errors import UnknownKernel
from uffdlab.kernels.catalogue import Built, CatalogueError, Packaged, default_file, load

SOURCE = '[source.s]\npackage = "linux-source-6.1"\nsuites = ["bookworm"]\n'
KERNEL = '[kernel.k]\nabout = "a"\n'


def read(folder, text: str):
    path = folder / "kernels.toml"
    path.write_text(text)
    return load(path)


def test_the_catalogue_of_the_project_is_valid():
    kernels = load()
    names = [entry.name for entry in kernels]
    assert names[:3] == ["6.1-base", "6.1-as-posted", "6.1-series"]
    assert {"debian/bookworm", "debian/trixie", "debian/trixie-backports"} <= set(names)
    assert len(names) == len(set(names)) == len(kernels)
    built = [entry for entry in kernels if isinstance(entry, Built)]
    assert len({entry.localversion for entry in built}) == len(built)
    assert all(patch.suffix == ".patch" for entry in built for patch in entry.patches)
    assert all("pte-reader" in str(patch) for patch in kernels["6.1-base"].patches)
    assert all(isinstance(kernels[name], Packaged) for name in names if name.startswith("debian/"))


def test_patches_have_the_listed_order_and_those_of_a_folder_that_of_their_names(tmp_path):
    for name in ("p/0002-b.patch", "p/0001-a.patch", "p/notes.txt", "x.patch", "one.config", "two.config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    kernel = read(
        tmp_path,
        SOURCE
        + 'config = ["one.config"]\n'
        + KERNEL
        + 'source = "s"\npatches = ["x.patch", "p"]\nconfig = ["two.config"]\nlocalversion = "-x"\n',
    )["k"]
    assert [path.name for path in kernel.patches] == ["x.patch", "0001-a.patch", "0002-b.patch"]
    assert [path.name for path in kernel.config] == ["one.config", "two.config"]
    assert (kernel.package, kernel.suites, kernel.localversion) == ("linux-source-6.1", ("bookworm",), "-x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[kernel", "is no TOML"),
        ("kernel = 3", "kernel is not a table"),
        ("[kernels.x]", "unknown kernels"),
        (KERNEL, "package is missing"),
        (SOURCE + "other_version = 7\n", "other_version is not true or false"),
        ('[kernel.k]\npackage = "p"\nsuites = ["s"]\n', r'\[kernel."k"\]: about is missing'),
        (KERNEL + 'package = "p"\nsuites = "s"\n', "suites is not a list"),
        (KERNEL + 'package = "p"\nsuites = []\n', "at least one"),
        (KERNEL + 'package = "p q"\nsuites = ["s"]\n', "package 'p q' is not a name of letters"),
        (KERNEL + 'package = "--purge"\nsuites = ["s"]\n', "'--purge' is not a name of letters"),
        (KERNEL + 'package = "p"\nsuites = ["s\\nx"]\n', "not a list of at least one name"),
        (KERNEL + 'package = "p"\nsuites = ["s"]\npatches = ["x"]\n', "unknown patches"),
        (SOURCE + KERNEL + 'source = "t"\n', r"no \[source.t\]; there are s"),
        (SOURCE + KERNEL + 'source = "s"\npatches = ["none.patch"]\n', "none.patch is neither a patch nor a folder"),
        (SOURCE + KERNEL + 'source = "s"\nconfig = ["none.config"]\n', "none.config is not a file"),
        (SOURCE + KERNEL + 'source = "s"\nlocalversion = "x y"\n', "localversion 'x y'"),
        ("[flavour.f]\npatches = 3\n", "patches is not a table"),
        ('[flavour.f]\npatches.s = ["none.patch"]\n', "s: .*none.patch is neither a patch nor a folder"),
        ('[flavour.f]\nobjects = "../x"\n', "objects '../x' is not the name of a flavour"),
        ('[kernel."../k"]\nabout = "a"\npackage = "p"\nsuites = ["s"]\n', "a kernel's name has letters"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, message):
    with pytest.raises(CatalogueError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(CatalogueError, match="No such file"):
        load(tmp_path / "kernels.toml")


@given(st.text())
def test_the_error_for_an_unknown_name_lists_the_kernels(name):
    kernels = load()
    if name not in kernels:
        with pytest.raises(UnknownKernel, match=r"6\.1-series"):
            kernels[name]


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("6.1-serie", "6.1-series"), ("debian/trixe", "debian/trixie"), ("6.1-asposted", "6.1-as-posted")],
)
def test_the_nearest_name_is_suggested(typo, meant):
    with pytest.raises(UnknownKernel, match=f"did you mean .*{meant}") as caught:
        load()[typo]
    assert caught.value.near[0] == meant


def test_the_examples_of_the_readme_are_valid(tmp_path):
    folder = default_file().parent
    shutil.copytree(folder, tmp_path / "kernel-patch")
    (tmp_path / "kernel-patch" / "6.1" / "mine").mkdir()
    (tmp_path / "kernel-patch" / "6.1" / "mine" / "0001-x.patch").write_text("")
    (tmp_path / "kernel-patch" / "config" / "mine.config").write_text("")
    examples = re.findall(r"```toml\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(examples) == 3
    path = tmp_path / "kernel-patch" / "kernels.toml"
    path.write_text("\n".join([path.read_text(), *examples]))
    assert {"6.1-mine", "debian/sid"} <= {entry.name for entry in load(path)}


def test_a_flavour_adds_patches_and_config_to_a_built_kernel(tmp_path):
    kernels = load(default_file())
    plain, flavoured, unfixed = (kernels[f"6.1-series{suffix}"] for suffix in ("", "+debug", "+unfixed"))
    assert flavoured.config == (*plain.config, default_file().parent / "config" / "debug.config")
    assert flavoured.localversion == "-series-debug"
    assert {patch.parent.name for patch in set(flavoured.patches) - set(plain.patches)} == {"fixes"}
    assert (unfixed.patches, unfixed.config) == (plain.patches, flavoured.config)
    assert unfixed.objects == flavoured.objects
    assert flavoured.objects != plain.objects
    assert (plain.image, flavoured.image) == ("vmlinux", "bzImage")
    assert "6.1-series+debug" in kernels
    for name in ("debian/trixie+debug", "6.1-series+fast", "no-such-kernel+debug"):
        assert name not in kernels
        with pytest.raises(UnknownKernel, match="no kernel is called"):
            kernels[name]


def test_the_patches_of_a_flavour_are_for_one_source(tmp_path):
    for name in ("own.patch", "more.patch"):
        (tmp_path / name).write_text("")
    kernels = read(
        tmp_path,
        SOURCE
        + SOURCE.replace("source.s", "source.t")
        + '[flavour.more]\npatches.s = ["more.patch"]\n'
        + KERNEL
        + 'source = "s"\npatches = ["own.patch"]\n'
        + KERNEL.replace("kernel.k", "kernel.l")
        + 'source = "t"\n',
    )
    assert [path.name for path in kernels["k+more"].patches] == ["own.patch", "more.patch"]
    assert kernels["l+more"].patches == ()


def test_the_kernels_for_upstream_have_their_mutations():
    kernels = load(default_file(), default_file().parent / "upstream" / "kernels.toml")
    broken = [kernels[name] for name in ("7.3-ignore", "7.3-lose")]
    assert all(entry.source.other_version for entry in broken)
    assert not kernels["6.1-base"].source.other_version
    assert [[path.parent.name for path in entry.patches] for entry in broken] == [["selftests", "mutations"]] * 2
