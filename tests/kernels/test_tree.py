"""The source tree: patches are applied and removed, also after an interruption."""

from __future__ import annotations

import difflib
import shutil
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uffdlab.errors import PatchError
from uffdlab.kernels import tree as tree_module
from uffdlab.kernels.tree import Tree, touched_paths

PRISTINE = {"a.c": "one\ntwo\nthree\n", "mm/b.c": "b\n", "mm/c.c": "c\n-- c\n"}
names = st.sampled_from([*PRISTINE, "new.c", "mm/deep/new.c"])
variants = st.dictionaries(names, st.one_of(st.none(), st.text("xyz\n-+@ ", min_size=1).map(lambda text: text + "\n")))


def diff(before: dict[str, str], after: dict[str, str | None]) -> str:
    text = ""
    for name, new in after.items():
        old = before.get(name)
        if old != new:
            text += "".join(
                difflib.unified_diff(
                    (old or "").splitlines(keepends=True),
                    (new or "").splitlines(keepends=True),
                    f"a/{name}" if old is not None else "/dev/null",
                    f"b/{name}" if new is not None else "/dev/null",
                )
            )
    return text


def content(folder) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def pristine_tree(folder) -> Tree:
    shutil.rmtree(folder, ignore_errors=True)
    tree = Tree(folder, "0123456789abcdef0123")
    for name, text in PRISTINE.items():
        (tree.source / name).parent.mkdir(parents=True, exist_ok=True)
        (tree.source / name).write_text(text)
    return tree


def with_changes(changes: dict[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in {**PRISTINE, **changes}.items() if text is not None}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(variants, min_size=1, max_size=4))
def test_each_variant_in_a_sequence_has_exactly_its_content(tmp_path, sequence):
    tree = pristine_tree(tmp_path / "tree")
    for changes in [*sequence, {}]:
        patch = tmp_path / "it.patch"
        patch.write_text(diff(PRISTINE, changes))
        tree.switch_to([patch] if patch.read_text() else [], "it")
        assert content(tree.source) == with_changes(changes)


@pytest.mark.parametrize("writes", range(8))
def test_an_interruption_between_any_two_writes_is_repaired(tmp_path, monkeypatch, writes):
    tree = pristine_tree(tmp_path / "tree")
    first = {"a.c": "ONE\n", "mm/b.c": None, "new.c": "new\n"}
    second = {"mm/c.c": "C\n", "mm/b.c": "B\n", "a.c": "two\n"}
    patches = []
    for number, changes in enumerate((first, second)):
        patches.append(tmp_path / f"{number}.patch")
        patches[-1].write_text(diff(PRISTINE, changes))
    tree.switch_to(patches[:1], "first")

    remaining = writes
    write = tree_module.write_atomically

    def interrupted_write(path, data):
        nonlocal remaining
        remaining -= 1
        if remaining < 0:
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(tree_module, "write_atomically", interrupted_write)
    try:
        tree.switch_to(patches[1:], "second")
    except KeyboardInterrupt:
        assert writes < 7
    monkeypatch.undo()
    tree.switch_to(patches[:1], "first")
    assert content(tree.source) == with_changes(first)
    tree.switch_to([], "none")
    assert content(tree.source) == PRISTINE


def test_only_files_that_differ_are_written(tmp_path):
    tree = pristine_tree(tmp_path / "tree")
    one, two = tmp_path / "1.patch", tmp_path / "2.patch"
    one.write_text(diff(PRISTINE, {"a.c": "A\n", "mm/b.c": "B\n"}))
    two.write_text(diff(PRISTINE, {"a.c": "A\n", "mm/b.c": "BB\n"}))
    tree.switch_to([one], "one")
    before = {name: (tree.source / name).stat() for name in PRISTINE}
    tree.switch_to([two], "two")
    after = {name: (tree.source / name).stat() for name in PRISTINE}
    changed = {name for name in PRISTINE if before[name].st_mtime_ns != after[name].st_mtime_ns}
    assert changed == {"mm/b.c"}


def test_patches_apply_in_order_and_do_not_change_modes(tmp_path):
    tree = pristine_tree(tmp_path / "tree")
    (tree.source / "a.c").chmod(0o755)
    one, two = tmp_path / "1.patch", tmp_path / "2.patch"
    one.write_text(diff(PRISTINE, {"a.c": "A\n"}))
    two.write_text(diff({"a.c": "A\n"}, {"a.c": "AA\n"}))
    tree.switch_to([one, two], "both")
    assert (tree.source / "a.c").read_text() == "AA\n"
    assert (tree.source / "a.c").stat().st_mode & 0o777 == 0o755
    with pytest.raises(PatchError, match=r"2\.patch does not apply"):
        tree.switch_to([two], "second alone")
    assert (tree.source / "a.c").read_text() == "AA\n"


def test_a_rename_of_git_is_applied_and_removed(tmp_path):
    tree = pristine_tree(tmp_path / "tree")
    patch = tmp_path / "move.patch"
    patch.write_text(
        "diff --git a/mm/b.c b/mm/moved.c\nsimilarity index 100%\nrename from mm/b.c\nrename to mm/moved.c\n"
    )
    tree.switch_to([patch], "moved")
    assert content(tree.source) == with_changes({"mm/b.c": None, "mm/moved.c": "b\n"})
    tree.switch_to([], "none")
    assert content(tree.source) == PRISTINE


def test_a_patch_with_another_context_is_refused(tmp_path):
    tree = pristine_tree(tmp_path / "tree")
    patch = tmp_path / "near.patch"
    patch.write_text("--- a/a.c\n+++ b/a.c\n@@ -1,3 +1,3 @@\n ONE\n-two\n+TWO\n three\n")
    with pytest.raises(PatchError) as caught:
        tree.switch_to([patch], "near")
    assert "a.c" in caught.value.output
    assert "+TWO" in caught.value.output
    assert content(tree.folder) == {f"{tree.source.name}/{name}": text for name, text in PRISTINE.items()}


def test_touched_paths_reads_headers_only(tmp_path):
    patch = tmp_path / "it.patch"
    patch.write_text(
        "Subject: x\n\n--- a/mm/c.c\t2023-01-01\n+++ b/mm/c.c\t2023-01-02\n@@ -1,2 +1,2 @@\n c\n--- a/b\n+++ /etc/x\n"
        "--- /dev/null\n+++ b/fs/new.c\n@@ -0,0 +1 @@\n+new\n-- \n2.39.1\n"
    )
    assert touched_paths(patch) == {PurePosixPath("mm/c.c"), PurePosixPath("fs/new.c")}


@pytest.mark.parametrize("name", ["/etc/passwd", "a/../../x", "x"])
def test_paths_outside_the_tree_are_refused(tmp_path, name):
    patch = tmp_path / "it.patch"
    patch.write_text(f"--- {name}\n+++ {name}\n@@ -1 +1 @@\n-x\n+y\n")
    with pytest.raises(PatchError, match="not a path inside the tree"):
        touched_paths(patch, "it")


@pytest.mark.parametrize("text", ["", "Subject: a cover letter\n", "\0\x01binary"])
def test_a_patch_without_hunks_is_refused(tmp_path, text):
    patch = tmp_path / "it.patch"
    patch.write_text(text)
    with pytest.raises(PatchError, match="no hunks"):
        touched_paths(patch, "it")
