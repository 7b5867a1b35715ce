"""Patches found in mails, mboxes and pages."""

from __future__ import annotations

import base64

import pytest

from uffdlab.errors import PatchError
from uffdlab.kernels.mail import read

DIFF = """\
diff --git a/mm/x.c b/mm/x.c
--- a/mm/x.c
+++ b/mm/x.c
@@ -1,3 +1,3 @@ int x(void)
 {
-\treturn 1;
+\treturn 2;
 }
"""
MAIL = "From: A <a@example.org>\nSubject: [PATCH 2/3] mm: two\nDate: today\n"


def test_a_mail():
    [message] = read(f"{MAIL}\nWhy.\n---\n{DIFF}-- \n2.39.1\n".encode(), "m")
    assert (message.subject, message.depth) == ("[PATCH 2/3] mm: two", 0)
    [file] = message.files
    assert (file.old, file.new) == ("mm/x.c", "mm/x.c")
    [hunk] = file.hunks
    assert (hunk.line, hunk.start, hunk.section, hunk.missing) == (10, 1, "int x(void)", 0)
    assert hunk.lines == ((" ", "{"), ("-", "\treturn 1;"), ("+", "\treturn 2;"), (" ", "}"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encoded(end):
    body = base64.encodebytes(DIFF.replace("\n", end).encode()).decode()
    head = MAIL + "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n"
    [message] = read(f"{head}\n{body}".encode(), "m")
    assert message.files == read(DIFF.encode(), "m")[0].files or message.files[0].hunks[0].lines[1] == (
        "-",
        "\treturn 1;",
    )


def test_an_mbox_in_the_order_of_its_numbers():
    def mail(number: int) -> str:
        return (
            f"From a@example.org Tue Feb 14 22:38:39 2023\nFrom: A <a@example.org>\n"
            f"Subject: [PATCH v2 {number}/3] mm: {number}\n\n{DIFF if number else 'A cover letter.'}\n"
        )

    found = read("".join(mail(number) for number in (3, 0, 1, 2)).encode(), "m")
    assert [message.subject[-1] for message in found] == ["1", "2", "3"]


def test_a_page_of_an_archive():
    page = (
        "<html><body><pre>Re: [PATCH] mm: x\n" + DIFF.replace("{", "&#123;").replace("+", "<b>+</b>") + "</pre></html>"
    )
    [message] = read(page.encode(), "m")
    assert message.files[0].hunks[0].lines[2] == ("+", "\treturn 2;")


def test_a_new_file_and_one_that_goes():
    text = "--- /dev/null\n+++ b/a.c\n@@ -0,0 +1 @@\n+int a;\n--- a/b.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-int b;\n"
    assert [(file.old, file.new) for file in read(text.encode(), "m")[0].files] == [(None, "a.c"), ("b.c", None)]


@pytest.mark.parametrize(
    "text", ["", "Looks good to me.\n", MAIL + "\nCover letter\n 1 file changed\n", "--- a/x\n+++ b/x\n", "\0\xff" * 99]
)
def test_no_patch(text):
    with pytest.raises(PatchError, match="holds no patch"):
        read(text.encode("latin-1"), "m")


def test_too_large():
    with pytest.raises(PatchError, match="at most"):
        read(bytes((64 << 20) + 1), "m")
