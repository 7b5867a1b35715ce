"""Patches are read from mails, mboxes and web pages."""

from __future__ import annotations

import base64
import gzip
import html
import quopri
from email.message import EmailMessage

import pytest

from uffdlab.errors import PatchError
from uffdlab.kernels.patches.mail import read

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


def test_a_patch_is_read_from_a_mail():
    [message] = read(f"{MAIL}\nWhy.\n---\n{DIFF}-- \n2.39.1\n".encode(), "m").messages
    assert (message.subject, message.depth) == ("[PATCH 2/3] mm: two", 0)
    [file] = message.files
    assert (file.old, file.new) == ("mm/x.c", "mm/x.c")
    [hunk] = file.hunks
    assert (hunk.line, hunk.start, hunk.section, hunk.missing) == (10, 1, "int x(void)", 0)
    assert hunk.lines == ((" ", "{"), ("-", "\treturn 1;"), ("+", "\treturn 2;"), (" ", "}"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_base64_mail_is_decoded(end):
    body = base64.encodebytes(DIFF.replace("\n", end).encode()).decode()
    head = MAIL + "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n"
    [message] = read(f"{head}\n{body}".encode(), "m").messages
    assert message.change == read(DIFF.encode(), "m").messages[0].change


def mime(text: bytes, charset: str, encoding: str) -> bytes:
    head = f"{MAIL}Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {encoding}\n\n"
    return head.encode() + (quopri.encodestring(text) if encoding == "quoted-printable" else text)


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable"])
@pytest.mark.parametrize("charset", ["utf-8", "x-unheard-of", "us-ascii"])
def test_non_ascii_text_is_decoded(charset, encoding):
    text = DIFF.replace("return 2;", "return 2; /* größer */").encode()
    [message] = read(mime(text, charset, encoding), "m").messages
    assert message.files[0].hunks[0].lines[2] == ("+", "\treturn 2; /* größer */")


def test_bytes_that_are_not_utf_8_are_not_changed():
    [message] = read(DIFF.encode().replace(b"return 2", b"return '\xe9'"), "m").messages
    assert message.text.encode("utf-8", "surrogateescape").count(b"'\xe9'") == 1


def attached(**content_type) -> bytes:
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "a@example.org", "[PATCH] mm: two"
    mail.set_content("See what is attached.\n")
    mail.add_attachment(DIFF.encode(), filename="two.patch", **content_type)
    return mail.as_bytes()


def html_mail() -> bytes:
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "a@example.org", "[PATCH] mm: two"
    mail.set_content(f"<html><body><pre>{html.escape(DIFF)}</pre></body></html>", subtype="html")
    return mail.as_bytes()


def three_copies() -> bytes:
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "a@example.org", "[PATCH] mm: two"
    mail.set_content(DIFF)
    mail.add_alternative(f"<pre>{html.escape(DIFF)}</pre>", subtype="html")
    mail.add_attachment(DIFF, subtype="x-patch", filename="two.patch")
    return mail.as_bytes()


def forwarded() -> bytes:
    inner, outer = EmailMessage(), EmailMessage()
    inner["From"], inner["Subject"] = "a@example.org", "[PATCH] mm: two"
    inner.set_content(DIFF)
    outer["From"], outer["Subject"] = "b@example.org", "Fwd: [PATCH] mm: two"
    outer.add_attachment(inner)
    return outer.as_bytes()


@pytest.mark.parametrize(
    "data",
    [
        attached(maintype="text", subtype="x-patch"),
        attached(maintype="application", subtype="octet-stream"),
        html_mail(),
        three_copies(),
        forwarded(),
        b"\xef\xbb\xbf" + MAIL.encode() + b"\n" + DIFF.encode(),
        (MAIL + "\n" + DIFF).encode("utf-16"),
        gzip.compress((MAIL + "\n" + DIFF).encode(), mtime=0),
        (MAIL + "\n" + DIFF).replace("\n", "\r\n").encode(),
        DIFF.replace(" a/", " ").replace(" b/", " ").encode(),
        "".join(f"&gt; {html.escape(line)}\n" for line in DIFF.splitlines()).encode(),
        f"<html><body>{'<br>'.join(html.escape(DIFF).splitlines())}".encode(),
    ],
    ids=lambda data: "",
)
def test_the_patch_is_found_in_any_format(data):
    [message] = read(data, "m").messages
    assert message.change == read(DIFF.encode(), "m").messages[0].change
    assert "None" not in message.subject


def mail_of_series(number: int, *, of: int = 3, version: str = "", reply: bool = False, end: str = "\n") -> str:
    diff = DIFF.replace("return 2", f"return {number}") if number else "A cover letter."
    text = "".join(f"> {line}\n" for line in diff.splitlines()) if reply else diff
    subject = f"{'Re: ' * reply}[PATCH{version} {number}/{of}] mm: {number}"
    start = "From a@example.org Tue Feb 14 22:38:39 2023\n"
    return f"{start}From: A <a@example.org>\nSubject: {subject}\n\n{text}\n".replace("\n", end)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_patches_of_an_mbox_are_sorted_by_their_numbers(end):
    found = read("".join(mail_of_series(number, end=end) for number in (3, 0, 1, 2)).encode(), "m")
    assert [message.subject[-1] for message in found.messages] == ["1", "2", "3"]
    assert found.notes == ()
    assert [message.files[0].hunks[0].line for message in found.messages] == [26, 39, 8]


def test_replies_and_older_versions_of_a_thread_are_left_out():
    thread = [mail_of_series(number) for number in (0, 1, 2, 3)]
    thread += [mail_of_series(2, reply=True), *(mail_of_series(number, of=2, version=" v2") for number in (1, 2, 2))]
    found = read("".join(thread).encode(), "m")
    assert [message.subject for message in found.messages] == ["[PATCH v2 1/2] mm: 1", "[PATCH v2 2/2] mm: 2"]
    assert found.notes == (
        *(f"left out, version 2 is newer: [PATCH {number}/3] mm: {number}" for number in (1, 2, 3)),
        "left out, it quotes a patch: Re: [PATCH 2/3] mm: 2",
        "left out, it occurs twice: [PATCH v2 2/2] mm: 2",
    )


def test_a_gap_in_a_series_is_reported():
    assert read("".join(map(mail_of_series, (1, 3))).encode(), "m").notes == ("missing from the series: 2/3",)


def test_a_patch_is_read_from_a_page_of_an_archive():
    page = (
        "<html><body><pre>Re: [PATCH] mm: x\n" + DIFF.replace("{", "&#123;").replace("+", "<b>+</b>") + "</pre></html>"
    )
    [message] = read(page.encode(), "m").messages
    assert message.files[0].hunks[0].lines[2] == ("+", "\treturn 2;")


def test_new_and_deleted_files_are_read():
    text = "--- /dev/null\n+++ b/a.c\n@@ -0,0 +1 @@\n+int a;\n--- a/b.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-int b;\n"
    assert [(file.old, file.new) for file in read(text.encode(), "m").messages[0].files] == [
        (None, "a.c"),
        ("b.c", None),
    ]


@pytest.mark.parametrize(
    "text", ["", "Looks good to me.\n", MAIL + "\nCover letter\n 1 file changed\n", "--- a/x\n+++ b/x\n", "\0\xff" * 99]
)
def test_a_mail_without_a_patch_is_an_error(text):
    with pytest.raises(PatchError, match="contains no patch"):
        read(text.encode("latin-1"), "m")


def test_renames_binary_files_and_mode_changes_are_read():
    text = (
        "diff --git a/a.c b/b.c\nrename from a.c\nrename to b.c\n"
        "diff --git a/x.png b/x.png\nnew file mode 100644\nGIT binary patch\nliteral 1\nRc\n\n"
        "diff --git a/run b/run\nold mode 100644\nnew mode 100755\n" + DIFF
    )
    found = read(text.encode(), "m").messages[0].files
    assert [(file.old, file.new, file.unsupported, file.line, len(file.hunks)) for file in found] == [
        ("a.c", "b.c", "", 1, 0),
        (None, "x.png", "binary", 4, 0),
        ("run", "run", "mode", 10, 0),
        ("mm/x.c", "mm/x.c", "", 13, 1),
    ]


def test_code_that_looks_like_html_is_not_changed():
    [message] = read(DIFF.replace("return 2;", 'puts("<br> <pre>");').encode(), "m").messages
    assert message.files[0].hunks[0].lines[2] == ("+", '\tputs("<br> <pre>");')


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes((64 << 20) + 1), "more than 67108864 bytes"),
        (gzip.compress(bytes((64 << 20) + 1), mtime=0), "more than 67108864 bytes"),
        (gzip.compress(DIFF.encode(), mtime=0)[:-30] + bytes(9), "is damaged gzip"),
        ("".join(mail_of_series(1, of=1) for _ in range(1001)).encode(), "contains 1001 patches"),
        (DIFF.replace("-1,3", f"-{'9' * 5000},3").encode(), "a patch without hunks"),
    ],
    ids=["long", "long-unpacked", "damaged", "many", "digits"],
)
def test_a_mail_that_is_too_large_or_damaged_is_refused(data, message):
    with pytest.raises(PatchError, match=message):
        read(data, "m")
