"""Hunks are placed by their content, also when a mail archive has removed their white space."""

from __future__ import annotations

import difflib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uffdlab.errors import PatchError
from uffdlab.kernels.patches.c_tokens import change_as, fold
from uffdlab.kernels.patches.fit import fit
from uffdlab.kernels.patches.mail import read

C = """\
#define MODE_DONTWAKE\t\t((__u64)1<<0)

static int fill(struct mm_struct *mm, unsigned long start,
\t\tbool wp_copy)
{
\tint ret;

\tif (start & ~MODE_DONTWAKE)
\t\tgoto out;

\tif (mm) {
\t\tret = work(mm, start,
\t\t\t   &mm->changing);
\t}
\tret = 0;
out:
\treturn ret;
}

int other(void)
{
\treturn 7;
}
"""
CHANGED = """\
#define MODE_DONTWAKE\t\t((__u64)1<<0)
#define MODE_WP\t\t\t((__u64)1<<1)

static int fill(struct mm_struct *mm, unsigned long start,
\t\tbool wp_mode)
{
\tint ret;

\tif (start & ~(MODE_DONTWAKE |
\t\t      MODE_WP))
\t\tgoto out;

\tif (mm) {
\t\tret = work(mm, start,
\t\t\t   &mm->changing,
\t\t\t   start);
\t\tif (ret)
\t\t\tret = -EAGAIN;
\t}
\tret = 0;
out:
\treturn ret;
}

/*
 * How it is chosen.
 */
static bool chosen(int mode)
{
\tswitch (mode) {
\tcase 0: return true;
\tdefault: return false;
\t}
}

int other(void)
{
\treturn 7;
}
"""


def diff(old: str, new: str, path: str = "mm/x.c") -> str:
    body = difflib.unified_diff(old.splitlines(), new.splitlines(), f"a/{path}", f"b/{path}", lineterm="")
    return f"diff --git a/{path} b/{path}\n" + "\n".join(body) + "\n"


def strip(patch: str, mark: str = "> > ") -> str:
    """Return a patch as a mail archive shows it: quoted, without indentation, with single spaces."""
    lines = [re.sub(r"[ \t]+", " ", line.strip()) for line in patch.splitlines()]
    return "".join(f"{mark}{line}".rstrip() + "\n" for line in lines)


def fitted(old: str, mail: str) -> tuple[str, list[str], list[str]]:
    [message] = read(mail.encode(), "mail").messages
    [file] = message.files
    lines, placements = fit(old.splitlines(), file.hunks)
    return (
        "\n".join(lines) + "\n",
        [placement.outcome for placement in placements],
        [placement.why for placement in placements],
    )


@pytest.mark.parametrize("mark", ["", "> ", "> > ", ">>"])
def test_lost_indentation_is_restored(mark):
    result, outcomes, _ = fitted(C, strip(diff(C, CHANGED), mark))
    assert result == CHANGED
    assert set(outcomes) == {"placed"}


@pytest.mark.parametrize("mark", ["", "> "])
def test_white_space_of_the_patch_is_not_changed(mark):
    odd = CHANGED.replace("\t\t\tret = -EAGAIN;", "\t\t   ret  =  -EAGAIN;")
    patch = "".join(f"{mark}{line}\n" for line in diff(C, odd).splitlines())
    assert fitted(C, patch)[0] == odd


def test_replies_between_the_lines_are_skipped():
    mail = strip(diff(C, CHANGED)).replace("> > + MODE_WP))\n", "> > + MODE_WP))\n> Why so?\n\nBecause.\n", 1)
    assert "Because" in mail
    assert fitted(C, mail)[0] == CHANGED


def test_a_hunk_for_another_of_the_file_is_a_guess():
    other = C.replace("bool wp_copy)", "int mode, bool wp_copy)").replace("\tint ret;\n", "\tint ret;\n\tlong n;\n")
    result, outcomes, why = fitted("\n" * 40 + other, strip(diff(C, C.replace("wp_copy", "wp_mode"))))
    assert result == "\n" * 40 + other.replace("wp_copy", "wp_mode")
    assert outcomes == ["guessed"]
    assert "int mode, bool wp_copy" in why[0]


def test_a_hunk_without_a_place_is_reported():
    mail = strip(diff(C, CHANGED))
    result, outcomes, why = fitted("int main(void)\n{\n\treturn 0;\n}\n" * 9, mail)
    assert result == "int main(void)\n{\n\treturn 0;\n}\n" * 9
    assert set(outcomes) == {"unplaced"}
    assert "no place in the file" in why[0]


def test_a_hunk_that_is_applied_already_is_unplaced():
    _, outcomes, why = fitted(CHANGED, strip(diff(C, CHANGED)))
    assert set(outcomes) == {"unplaced"}
    assert set(why) == {"the tree has this change already"}


def test_a_hunk_that_fits_two_places_is_a_guess():
    old = "int a;\nint b;\nint c;\nint d;\nint e;\nint f;\nint g;\n"
    mail = strip(diff(old, old.replace("int d;", "int dd;")))
    _, outcomes, why = fitted("int z;\n" * 3 + old + old, mail)
    assert outcomes == ["guessed"]
    assert "2 places are equal" in why[0]
    # A removed line that the file lacks must not match another line.
    _, outcomes, _ = fitted(old.replace("int d;", "unsigned q[4];"), mail)
    assert outcomes == ["unplaced"]


def test_a_hunk_cut_short_is_a_guess():
    mail = strip(diff(C, C.replace("return 7", "return 8"))).rstrip().rsplit("\n", 1)[0] + "\n"
    result, outcomes, why = fitted(C, mail)
    assert result == C.replace("return 7", "return 8")
    assert outcomes == ["guessed"]
    assert "more lines than there are" in why[0]


@pytest.mark.parametrize(
    ("tree", "removed", "added", "expected"),
    [
        ("\tmcopy, wp_copy);", "wp_copy);", "wp_mode);", "\tmcopy, wp_mode);"),
        ("\tif (a)", "if (a)", "if (!a)", "\tif (!a)"),
        ("\tx = 1;", "x = 1;", "int x = 1;", "\tint x = 1;"),
        ("\tint x = 1;", "int x = 1;", "x = 1;", "\tx = 1;"),
        ("\tf(a)", "f(a)", "f(a | b)", "\tf(a | b)"),
        ("\ty = 2;", "x = 1;", "x = 3;", None),
    ],
)
def test_a_change_is_made_on_a_similar_line(tree, removed, added, expected):
    assert change_as(tree, removed, added) == expected


_LINES = st.lists(
    st.builds(
        lambda tabs, arguments: "\t" * tabs + " ".join(arguments),
        st.integers(0, 3),
        st.lists(st.sampled_from(["if", "(a)", "x", "=", "1;", "{", "}", "*", "ret", "f(b,"]), max_size=4),
    ).map(str.rstrip),
    max_size=40,
)


@given(_LINES, _LINES, st.sampled_from(["", "> ", ">> ", "> > > "]))
@example([], ["if", "if"], "")
def test_any_diff_is_placed_after_it_lost_its_white_space(old, new, mark):
    patch = diff("".join(f"{line}\n" for line in old), "".join(f"{line}\n" for line in new))
    if "@@" not in patch:
        with pytest.raises(PatchError):
            read(patch.encode(), "mail")
        return
    [message] = read(strip(patch, mark).encode(), "mail").messages
    lines, placements = fit(old, message.files[0].hunks)
    assert {placement.outcome for placement in placements} == {"placed"}
    assert [fold(line) for line in lines] == [fold(line) for line in new]
    # With white space in the patch the result is exact.  A new file without any may have lost it.
    if old or any(line.startswith("\t") for line in new):
        assert fit(old, read(patch.encode(), "mail").messages[0].files[0].hunks)[0] == new


def test_the_search_ends_at_its_limits():
    lines = [f"\tline {number};" for number in range(3000)]
    body = "".join(f" \tlin {number};\n" for number in range(1500))
    patch = f"--- a/x\n+++ b/x\n@@ -1,1500 +1,1501 @@\n{body}+\tx;\n@@ -9,1 +9,1 @@\n-\tline 9;\n+\ty;\n"
    hunks = read(patch.encode(), "mail").messages[0].files[0].hunks
    result, placements = fit(lines, hunks)
    assert [placement.outcome for placement in placements] == ["unplaced", "placed"]
    assert "more than 1000 lines" in placements[0].why
    assert result[9] == "\ty;"
    _, placements = fit(lines, hunks, until=0)
    assert {placement.why for placement in placements} == {"the time limit for the search has passed"}
