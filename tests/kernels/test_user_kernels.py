"""Kernels that the user adds: what is stored, what is refused, and that files of the user are not changed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import tiny_kernel

from uffdlab import cachedir
from uffdlab.errors import KernelError, PatchError, UnknownKernel, UsageError
from uffdlab.kernels.catalogue import CatalogueError, load
from uffdlab.kernels.supply import Supply
from uffdlab.kernels.user_kernels import UserKernels

# As a mail archive shows it: quoted, without indentation.
QUOTED = """\
Re: [PATCH] mm: minor faults at twice the mode

> diff --git a/mm/minor.c b/mm/minor.c
> --- a/mm/minor.c
> +++ b/mm/minor.c
> @@ -12,4 +12,6 @@
> int minor(void)
> {
> - return MODE;
> + if (MODE)
> + return 2 * MODE;
> + return 0;
> }
"""
WITH_MISSING_FILE = (
    QUOTED
    + """\
> diff --git a/mm/gone.c b/mm/gone.c
> --- a/mm/gone.c
> +++ b/mm/gone.c
> @@ -1,1 +1,1 @@
> -int gone;
> +int here;
"""
)


@pytest.fixture
def user(lab, tmp_path) -> UserKernels:
    return UserKernels(tmp_path / "user", lab.toml, lambda kernels: Supply(kernels, lab.cache, lab.archive))


@pytest.fixture
def file(tmp_path):
    def write(name: str, text: str):
        path = tmp_path / "mine" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def files_in(user: UserKernels) -> list[str]:
    return sorted(
        str(path.relative_to(user.folder))
        for path in user.folder.rglob("*")
        if path.is_file() and path.name != ".lock" and path.read_bytes()
    )


def test_a_patch_becomes_a_kernel_that_builds(user, lab, file):
    patch = file("two.patch", tiny_kernel.PATCH)
    user.add("mine/Two", [patch], "tiny-base", file("f.config", "CONFIG_MORE=y\n"))
    patch.unlink()  # it was copied
    kernel = Supply(user.load(), lab.cache, lab.archive).get("mine/Two")
    assert kernel.release == "6.1.0-mine-two"
    assert (
        lab.tree
        / f"source-{lab.archive.resolve('linux-source-tiny', (), lab.folder, None).debs[0].sha256[:16]}"
        / "include"
        / "mode.h"
    ).read_text() == "#define MODE 2\n"
    assert "CONFIG_MORE=y" in kernel.config.read_text()
    assert user.load()["mine/Two"].on == "tiny-base"


def test_a_kernel_may_be_based_on_a_user_kernel(user, file):
    user.add("one", [file("two.patch", tiny_kernel.PATCH)], "tiny-base")
    user.am(file("mail", QUOTED), "one", "two")
    with pytest.raises(KernelError, match="two are based on it"):
        user.remove("one")
    assert [path.name[:4] for path in user.load()["two"].patches] == ["0001", "0001"]
    assert (user.remove("two"), user.remove("one"), user.remove("one")) == (True, True, False)
    assert files_in(user) == []


def test_am_fits_a_quoted_mail(user, lab, file):
    mail = file("mail", QUOTED)
    [made] = user.am(mail, "tiny-base", "from-mail").patches
    assert [str(report).split()[2:4] for report in made.reports] == [["6", "placed"]]
    assert b"+\tif (MODE)\n+\t\treturn 2 * MODE;\n+\treturn 0;\n }" in made.text
    assert mail.read_text() == QUOTED
    assert user.load()["from-mail"].about == "tiny-base with mm: minor faults at twice the mode"
    assert Supply(user.load(), lab.cache, lab.archive).get("from-mail").release == "6.1.0-from-mail"
    assert lab.leftovers() == []


def test_am_does_not_change_a_patch_that_applies(user, file):
    [made] = user.am(file("mail", tiny_kernel.PATCH), "tiny-base", "new").patches
    assert made.reports == ()
    assert made.text.endswith(tiny_kernel.PATCH[tiny_kernel.PATCH.index("\n---") :].encode())


def test_am_adds_a_series_in_its_order(user, file):
    second = tiny_kernel.PATCH.replace("MODE 2", "MODE 3").replace("MODE 1", "MODE 2")
    start = "From a@example.org Tue Feb 14 22:38:39 2023\n"
    box = "".join(
        f"{start}{text.replace('[PATCH] mode', f'[PATCH {number}/2] mode')}\n"
        for number, text in ((2, second), (1, tiny_kernel.PATCH))
    )
    user.am(file("mbox", box), "tiny-base", "new")
    assert [path.name for path in user.load()["new"].patches] == ["0001-mode-two.patch", "0002-mode-two.patch"]


def test_am_adds_and_deletes_files(user, lab, file):
    mail = (
        "> --- /dev/null\n> +++ b/mm/new.c\n> @@ -0,0 +1,4 @@\n> +int fresh(void)\n> +{\n> + return 4;\n> +}\n"
        "> --- a/mm/other.c\n> +++ /dev/null\n> @@ -1,4 +0,0 @@\n> -int other(void)\n> -{\n> - return 2;\n> -}\n"
    )
    user.am(file("mail", mail), "tiny-base", "new")
    supply = Supply(user.load(), lab.cache, lab.archive)
    assert list(supply.sources.read(supply.built("new", "to patch"), ())) == []
    assert supply.get("new").release == "6.1.0-new"
    source = next(lab.tree.glob("source-*"))
    assert (source / "mm/new.c").read_text() == "int fresh(void)\n{\n\treturn 4;\n}\n"
    assert not (source / "mm/other.c").exists()


def test_am_renames_files(user, lab, file):
    quoted = "".join(
        f"> {line}\n"
        for line in (
            *("diff --git a/mm/other.c b/mm/renamed.c", "rename from mm/other.c", "rename to mm/renamed.c"),
            *("--- a/mm/other.c", "+++ b/mm/renamed.c", "@@ -1,4 +1,4 @@"),
            *("int other(void)", "{", "- return 2;", "+ return 3;", "}"),
            *("diff --git a/fs/third.c b/mm/third.c", "rename from fs/third.c", "rename to mm/third.c"),
        )
    )
    [made] = user.am(file("mail", quoted), "tiny-base", "new").patches
    assert [report.placement.outcome for report in made.reports] == ["placed", "placed"]
    Supply(user.load(), lab.cache, lab.archive).get("new")
    source = next(lab.tree.glob("source-*"))
    assert not (source / "mm/other.c").exists()
    assert not (source / "fs/third.c").exists()
    assert (source / "mm/renamed.c").read_text() == "int other(void)\n{\n\treturn 3;\n}\n"
    assert (source / "mm/third.c").read_text() == tiny_kernel.FILES["fs/third.c"]


def test_am_reports_a_binary_file(user, file):
    mail = QUOTED + "> diff --git a/x.png b/x.png\n> new file mode 100644\n> GIT binary patch\n> literal 1\n> Rc\n"
    with pytest.raises(PatchError, match=r"unplaced  x.png: it is binary\n1 placed, 0 guessed, 1 unplaced\n1 of 2"):
        user.am(file("mail", mail), "tiny-base", "new")


@pytest.mark.parametrize("subject", ['a "quote" \\ and', "one \x7f\x01 more", "\U0001f600 fun", "ü" * 5000])
def test_any_subject_can_be_listed(user, file, subject):
    user.am(file("mail", QUOTED.replace("mm: minor faults", subject)), "tiny-base", "new")
    assert len(user.load()["new"].about) < 200
    assert user.load()["new"].about.isprintable()


def test_unplaced_hunks_are_refused_unless_allowed(user, file):
    with pytest.raises(PatchError, match=r"mail line +\d+ +unplaced +mm/gone.c: the tree has no mm/gone.c\n.*\n1 of 2"):
        user.am(file("mail", WITH_MISSING_FILE), "tiny-base", "new")
    assert files_in(user) == []
    [made] = user.am(file("mail", WITH_MISSING_FILE), "tiny-base", "new", allow_unplaced=True).patches
    assert made.unplaced == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Looks good to me.\n", "contains no patch"),
        (QUOTED.replace("mm/minor.c", "mm/gone.c"), "no hunk of .* has a place in this tree"),
        (QUOTED.replace("MODE", "x->y[3]").replace("minor", "q"), "no hunk of"),
        (QUOTED.replace("b/mm/minor.c", "b/../../minor.c"), "not a path inside the tree"),
        (QUOTED.replace("b/mm/minor.c", "b//etc/passwd"), "not a path inside the tree"),
    ],
)
def test_a_mail_without_a_patch_for_this_tree_is_refused(user, file, text, message):
    with pytest.raises(PatchError, match=message):
        user.am(file("mail", text), "tiny-base", "new")
    assert files_in(user) == []


def test_a_refused_kernel_leaves_nothing(user, file):
    user.add("good", [file("two.patch", tiny_kernel.PATCH)], "tiny-base")
    before = {name: (user.folder / name).read_bytes() for name in files_in(user)}
    for patches, on, config, error in (
        ([file("stale.patch", tiny_kernel.STALE_PATCH)], "tiny-base", None, PatchError),
        ([file("no.patch", "no patch\n")], "tiny-base", None, PatchError),
        ([file("out.patch", "--- a/x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n")], "tiny-base", None, PatchError),
        ([file("two.patch", tiny_kernel.PATCH)], "good", None, PatchError),
        ([file("two.patch", tiny_kernel.PATCH)], "none", None, UnknownKernel),
        ([file("two.patch", tiny_kernel.PATCH)], "packaged/here", None, CatalogueError),
        ([], "tiny-base", file("u.config", "# CONFIG_USERFAULTFD is not set\n"), KernelError),
        ([], "tiny-base", file("v.config", "CONFIG_X=y\nCONFIG_VIRTIO_PCI=n\n"), KernelError),
        ([], "tiny-base", file("w.config", "CONFIG_USERFAULTFD=m\n"), KernelError),
        ([], "tiny-base", file("x.config", "CONFIG_X=y\nthis is no option\n"), KernelError),
        ([], "tiny-base", None, UsageError),
    ):
        with pytest.raises(error):
            user.add("bad", patches, on, config)
        assert {name: (user.folder / name).read_bytes() for name in files_in(user)} == before
    for name in ("good", "tiny-base"):
        with pytest.raises(KernelError, match="already"):
            user.add(name, [file("two.patch", tiny_kernel.PATCH)], "tiny-base")
    for name in ("", "../bad", "a b", "/x", "é", "new\nline", 'q"', "x" * 81):
        for add in (
            lambda name: user.add(name, [file("two.patch", tiny_kernel.PATCH)], "tiny-base"),
            lambda name: user.am(file("mail", tiny_kernel.PATCH), "tiny-base", name),
        ):
            with pytest.raises(UsageError, match="cannot be added: a kernel's name"):
                add(name)
    assert {name: (user.folder / name).read_bytes() for name in files_in(user)} == before


def test_long_names_are_accepted(user, lab, file):
    user.add("x" * 80, [file(f"{'y' * 240}.patch", tiny_kernel.PATCH)], "tiny-base")
    kernel = Supply(user.load(), lab.cache, lab.archive).get("x" * 80)
    assert kernel.release == f"6.1.0-{'x' * 32}"
    assert user.remove("x" * 80)
    assert files_in(user) == []


def test_a_patch_is_read_from_a_pipe(user):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write(tiny_kernel.PATCH)
    user.add("piped", [Path(f"/dev/fd/{reading}")], "tiny-base")
    os.close(reading)
    assert user.load()["piped"].patches[0].read_text() == tiny_kernel.PATCH


def test_a_file_without_an_end_is_refused(user):
    for add in (
        lambda: user.add("new", [Path("/dev/zero")], "tiny-base"),
        lambda: user.add("new", [], "tiny-base", Path("/dev/zero")),
        lambda: user.am(Path("/dev/zero"), "tiny-base", "new"),
    ):
        with pytest.raises(PatchError, match="/dev/zero has more than 67108864 bytes"):
            add()


def test_a_config_may_have_a_comment_in_another_charset(user, lab, tmp_path):
    (tmp_path / "f.config").write_bytes(b"# gr\xf6\xdfer\nCONFIG_MORE=y\n")
    user.add("new", [], "tiny-base", tmp_path / "f.config")
    assert "CONFIG_MORE=y" in Supply(user.load(), lab.cache, lab.archive).get("new").config.read_text()


def test_a_kernel_is_listed_only_after_its_patches_were_applied(user, lab, file, monkeypatch):
    """A kill before that does not change the list; the files that it leaves are replaced later."""
    user.add("first", [file("two.patch", tiny_kernel.PATCH)], "tiny-base")
    before = user.file.read_bytes()
    contents = []

    def interrupt(*_):
        contents.append(user.file.read_bytes())
        raise KeyboardInterrupt

    (user.folder / ".adding.toml").write_text("left by a killed process")
    (user.folder / "patches/new").mkdir()
    (user.folder / "patches/new/0007-old.patch").write_text("left by a killed process")
    with monkeypatch.context() as patch:
        patch.setattr("uffdlab.kernels.tree.Tree.read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            user.add("new", [file("m.patch", tiny_kernel.BROKEN_PATCH)], "tiny-base")
    assert contents == [before]
    assert user.file.read_bytes() == before
    assert files_in(user) == ["kernels.toml", "patches/first/0001-two.patch"]


def test_a_list_that_cannot_be_written_is_reported(user, file, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("uffdlab.kernels.user_kernels.write_atomically", fail)
    with pytest.raises(KernelError, match=r"cannot be written \(No space left on device\): point UFFDLAB_KERNELS"):
        user.add("new", [file("two.patch", tiny_kernel.PATCH)], "tiny-base")
    assert files_in(user) == []


def test_a_kernel_whose_patches_are_missing_is_an_error(user, lab, file):
    user.add("new", [file("two.patch", tiny_kernel.PATCH)], "tiny-base")
    supply = Supply(user.load(), lab.cache, lab.archive)
    user.remove("new")
    with pytest.raises(KernelError, match=r"0001-two\.patch: No such file or directory: was the kernel removed"):
        supply.get("new")


def test_a_tree_whose_path_is_not_utf_8_is_refused(user, tmp_path):
    top = tiny_kernel.write_tree(tmp_path / os.fsdecode(b"\xe9"))
    with pytest.raises(UsageError, match="must be UTF-8"):
        user.add("new", on=top)
    assert files_in(user) == []


def test_entries_that_the_user_wrote_are_not_changed(user, file):
    user.folder.mkdir()
    text = '# mine\n[kernel.own]\nabout = "by hand"\non = "tiny-two"\n\n[kernel."new.er"]\nabout = "b"\non = "own"\n'
    user.file.write_text(text)
    user.add("new", [file("m.patch", tiny_kernel.BROKEN_PATCH)], "own")
    assert user.file.read_text().startswith(text)
    assert user.remove("new")
    assert user.file.read_text().strip() == text.strip()
    assert [entry.name for entry in load(user.file.parent.parent / "kernel-patch" / "kernels.toml", user.file)][
        -2:
    ] == [
        "own",
        "new.er",
    ]


def test_a_wait_for_another_process_ends_at_its_deadline(user, lab, file):
    user.folder.mkdir()
    kernels = UserKernels(user.folder, lab.toml, deadline=0.3)
    with cachedir.locked_file(user.folder / ".lock", "the test"):
        for change in (
            lambda: kernels.add("new", [file("two.patch", tiny_kernel.PATCH)], "tiny-base"),
            lambda: kernels.remove("new"),
        ):
            with pytest.raises(KernelError, match=rf"process {os.getpid()} has held .*\.lock for 0 s: end it"):
                change()
    assert files_in(user) == []


def test_the_environment_variable_sets_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("UFFDLAB_KERNELS", str(tmp_path / "here"))
    assert UserKernels().folder == tmp_path / "here"
    assert not (tmp_path / "here").exists()
