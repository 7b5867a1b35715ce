"""Kernels from a source tree of the user: what is copied and compiled again; the tree itself is not changed."""

from __future__ import annotations

import os
import subprocess
import tarfile
import time

import pytest
import tiny_kernel

from uffdlab.errors import BuildError, KernelError, SourceError
from uffdlab.kernels import user_tree
from uffdlab.kernels.progress import Silent
from uffdlab.kernels.supply import Supply
from uffdlab.kernels.user_kernels import UserKernels


@pytest.fixture
def user(lab, tmp_path) -> UserKernels:
    return UserKernels(tmp_path / "user", lab.toml, lambda kernels: Supply(kernels, lab.cache, lab.archive))


@pytest.fixture
def mine(tmp_path):
    """A tree in git, with a space in its path, an edit, and files that a build in it left."""
    folder = tiny_kernel.write_tree(tmp_path / "my tree")
    (folder / ".gitignore").write_text("*.o\n/.config\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=me", "-c", "user.email=me@example.org", "commit", "-q", "-m", "all of it")
    (folder / "mm/minor.o").write_text("old")
    (folder / ".config").write_text("CONFIG_OLD=y\n")
    (folder / "mm/minor.c").write_text(tiny_kernel.MINOR_C.replace("MODE;", "MODE + 1;"))
    return folder


def git(folder, *arguments: str) -> None:
    subprocess.run(["git", "-C", folder, *arguments], check=True)


def files_in(folder) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def names_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def get(user, lab, name="mine"):
    return Supply(user.load(), lab.cache, lab.archive).get(name, progress=Silent())


def compiled(kernel) -> list[str]:
    lines = kernel.log.read_text().splitlines()
    return [line.split()[1] for line in lines if line.startswith("  CC ")]


def test_a_tree_is_built_and_not_changed(user, lab, mine):
    before = files_in(mine)
    user.add("mine", on=mine)
    kernel = get(user, lab)
    assert kernel.release == "6.1.0-mine"
    assert len(compiled(kernel)) == 4
    assert files_in(mine) == before
    copy = next(lab.cache.folder.glob("trees/tree-my_tree-*")) / "source-copy"
    assert (copy / "mm/minor.c").read_text().endswith("MODE + 1;\n}\n")
    assert not (copy / "mm/minor.o").exists()
    assert not (copy / ".config").exists()
    assert (copy / "link").readlink().name == "minor.c"
    assert os.access(copy / "scripts/run", os.X_OK)
    assert not os.access(copy / "Makefile", os.X_OK)
    assert get(user, lab) == kernel
    assert "# not in this kernel: CONFIG_UNKNOWN=y" in kernel.log.read_text()
    assert lab.leftovers() == []


def test_an_edit_compiles_what_depends_on_it(user, lab, mine):
    user.add("mine", on=mine)
    first = get(user, lab)
    (mine / "mm/other.c").write_text("int other(void)\n{\n\treturn 7;\n}\n")
    second = get(user, lab)
    assert compiled(second) == ["mm/other.o"]
    assert second.image.read_bytes() != first.image.read_bytes()
    git(mine, "checkout", "-q", "mm/other.c")
    assert get(user, lab).key == first.key
    (mine / "mm/other.c").unlink()
    (mine / "mm/new").mkdir()
    (mine / "fs/fourth.c").write_text("int fourth;\n")
    third = get(user, lab)
    assert compiled(third) == ["fs/fourth.o"]
    assert b"other" not in third.image.read_bytes()


def test_files_with_any_name_are_copied(user, lab, mine):
    for name in (b"mm/\xe9t\xe9.h", "mm/Größe.h".encode(), b"mm/two\nlines.h", b"mm/end\r"):
        (mine / os.fsdecode(name)).write_text(f"/* {name} */\n")
    (mine / "mm/points").symlink_to(os.fsdecode(b"\xe9t\xe9.h"))
    user.add("mine", on=mine)
    get(user, lab)
    copy = next(lab.cache.folder.glob("trees/*/source-copy"))
    assert names_in(copy / "mm") == names_in(mine / "mm") - {"minor.o"}
    assert (copy / "mm/points").read_text() == (mine / "mm/points").read_text()


def test_an_edit_with_the_same_time_stamp_is_detected(mine, tmp_path):
    memo = tmp_path / "memo"
    path = mine / "mm/minor.c"
    digests = set()
    for number in range(20):
        path.write_text(f"int a = {number + 10};\n")
        os.utime(path, ns=(time.time_ns() // 10**9 * 10**9,) * 2)
        digests.add(user_tree.read_state(mine, memo).digest)
    assert len(digests) == 20


def test_a_patched_kernel_follows_edits_of_its_tree(user, lab, mine, tmp_path):
    patch = tmp_path / "two.patch"
    patch.write_text(tiny_kernel.PATCH)
    user.add("mine", on=mine)
    user.add("two", [patch], on="mine")
    user.add("three", [patch], on=mine)
    plain = get(user, lab)
    two = get(user, lab, "two")
    assert len(compiled(two)) == 4
    assert get(user, lab, "three").image.read_bytes() == two.image.read_bytes()
    assert len(list(lab.cache.folder.glob("trees/*"))) == 1
    (mine / "include/mode.h").write_text("#define MODE 1\n#define MORE 1\n")  # a file that the patch changes
    copy = next(lab.cache.folder.glob("trees/*/source-copy"))
    assert get(user, lab, "two").key != two.key
    assert (copy / "include/mode.h").read_text() == "#define MODE 2\n#define MORE 1\n"
    assert get(user, lab).key != plain.key
    assert (copy / "include/mode.h").read_text() == "#define MODE 1\n#define MORE 1\n"
    with pytest.raises(KernelError, match="two are based on it"):
        user.remove("mine")
    for name in ("two", "mine"):
        assert user.remove(name)
        assert list(lab.cache.folder.glob("trees/*"))  # kernel `three` also uses this tree
    assert user.remove("three")
    assert not list(lab.cache.folder.glob("trees/*"))
    assert not list(lab.cache.folder.glob("resolved/tree-*"))


def test_an_interrupted_copy_is_completed(user, lab, mine, monkeypatch):
    user.add("mine", on=mine)
    get(user, lab)
    (mine / "mm/other.c").write_text("int other(void)\n{\n\treturn 7;\n}\n")
    (mine / "fs/third.c").unlink()

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("uffdlab.kernels.tree.Tree.switch_to", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get(user, lab)
    git(mine, "checkout", "-q", ".")
    state = next(lab.cache.folder.glob("trees/*/copied.json"))
    copy = state.parent / "source-copy"
    assert not (copy / "fs/third.c").exists()
    with monkeypatch.context() as patch:
        patch.setattr("uffdlab.kernels.tree.Tree.put", interrupt)
        with pytest.raises(KeyboardInterrupt):
            get(user, lab)
    (copy / "mm/other.c").write_text("half")
    get(user, lab)
    assert (copy / "mm/other.c").read_text() == tiny_kernel.FILES["mm/other.c"]
    assert (copy / "fs/third.c").read_text() == tiny_kernel.FILES["fs/third.c"]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz", ".tar.bz2"])
def test_a_tarball_is_built(user, lab, tmp_path, suffix):
    top = tiny_kernel.write_tree(tmp_path / "linux-mine")
    tarball = tmp_path / f"mine{suffix}"

    def pack():
        with tarfile.open(tarball, f"w:{suffix[5:]}") as tar:
            tar.add(top, "linux-mine")

    pack()
    user.add("mine", on=tarball)
    first = get(user, lab)
    assert len(compiled(first)) == 4
    (top / "mm/other.c").write_text("int other;\n")
    pack()
    assert get(user, lab).key != first.key
    assert lab.leftovers() == []


def test_a_clean_folder_without_git_is_built(user, lab, tmp_path):
    top = tiny_kernel.write_tree(tmp_path / "plain")
    user.add("mine", on=top)
    assert len(compiled(get(user, lab))) == 4


def no_tar(path):
    path.write_text("Looks good to me.\n")


def other_tar(path):
    with tarfile.open(path, "w") as tar:
        tar.add(__file__, "x/test.py")


def no_kernel(path):
    path.mkdir()
    (path / "Makefile").write_text("")


def ignored(path):
    """Make a tree whose sources git ignores, as in a repository made of Debian's linux-source."""
    tiny_kernel.write_tree(path)
    (path / ".gitignore").write_text("*.o\n/*\n!/debian/\n")
    git(path, "init", "-q")
    git(path, "add", "-A")


def built_in(path):
    tiny_kernel.write_tree(path)
    (path / ".config").write_text("")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_tar, "cannot be unpacked"),
        (other_tar, "is not the source of a kernel with userfaultfd: it has no Makefile"),
        (no_kernel, "is not the source of a kernel with userfaultfd: it has no Kconfig"),
        (built_in, "a kernel was built in it"),
        (
            ignored,
            "git ignores Kconfig, Makefile, arch/x86/Makefile, mm/userfaultfd.c, as the",
        ),
        (lambda path: None, "cannot be read"),
    ],
)
def test_a_path_that_is_no_kernel_source_is_refused_and_leaves_nothing(user, lab, tmp_path, make, message):
    make(tmp_path / "tree")
    with pytest.raises(SourceError, match=message):
        user.add("mine", on=tmp_path / "tree")
    assert not user.file.exists()
    assert not list(lab.cache.folder.glob("trees/*"))
    assert lab.leftovers() == []


def test_a_tree_that_was_moved_is_an_error(user, lab, mine):
    user.add("mine", on=mine)
    get(user, lab)
    mine.rename(mine.with_name("moved"))
    with pytest.raises(SourceError, match="my tree: No such file"):
        get(user, lab)
    listed = {row.name: row.kernel for row in Supply(user.load(), lab.cache, lab.archive).available()}
    assert listed["mine"] is None


def test_a_config_without_an_option_that_the_lab_needs_is_an_error(user, lab, mine):
    (mine / "Makefile").write_text(
        tiny_kernel.MAKEFILE.replace("CONFIG_UNKNOWN", "-e CONFIG_UNKNOWN -e CONFIG_VIRTIO_PCI")
    )
    user.add("mine", on=mine)
    with pytest.raises(BuildError, match="its configuration lacks CONFIG_VIRTIO_PCI, which the lab needs"):
        get(user, lab)
    assert not list(lab.cache.folder.glob("images/*"))


def test_a_requested_option_that_the_build_drops_is_an_error(user, lab, mine, tmp_path):
    fragment = tmp_path / "f.config"
    fragment.write_text("CONFIG_UNKNOWN=y\n")
    user.add("mine", on=mine, config=fragment)
    with pytest.raises(BuildError, match="dropped CONFIG_UNKNOWN=y"):
        get(user, lab)
