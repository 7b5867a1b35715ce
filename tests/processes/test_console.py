"""The console is bounded and safe to print, and knows a panic when it sees one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.processes.console import Console


def console(data):
    made = Console()
    made.feed(data)
    return made


@given(st.lists(st.binary(max_size=300)))
def test_any_console_output_can_be_printed(pieces):
    made = Console()
    for piece in pieces:
        made.feed(piece)
    text = made.text()
    assert all(char.isprintable() or char in "\n\t " or char == "�" or ord(char) > 159 for char in text)
    assert "\x1b" not in text


def test_text_is_kept_as_it_is():
    assert console("[    0.0] Grüße\r\n\tzwei\n".encode()).text() == "[    0.0] Grüße\n\tzwei\n"


def test_the_console_is_bounded_and_keeps_both_ends():
    made = Console()
    made.feed(b"first line\n")
    for number in range(60_000):
        made.feed(b"line %06d %s\n" % (number, b"x" * 50))
    made.feed(b"last line\n")
    text = made.text()
    assert len(text) < (1 << 20) + 100
    assert text.startswith("first line\n")
    assert text.endswith("last line\n")
    assert "bytes left out" in text
    assert len(made._head) + len(made._tail) <= 1 << 20


def test_one_read_larger_than_the_bound():
    text = console(b"a" + bytes([ord("b")]) * (3 << 20) + b"c").text()
    assert text[0] == "a"
    assert text[-1] == "c"
    assert len(text) < (1 << 20) + 100


def test_the_tail():
    made = console(b"".join(b"%d\n\n" % number for number in range(100)))
    assert made.tail(3) == "97\n98\n99"
    assert console(b"").tail() == ""


def test_a_panic():
    made = console(
        b"[    1.2] BUG: kernel NULL pointer dereference, address: 0\n"
        b"[    1.3] Oops: 0002 [#1] SMP\n"
        b"[    1.4] Kernel panic - not syncing: Fatal exception\n"
    )
    assert made.panic() == (
        "Kernel panic - not syncing: Fatal exception, after BUG: kernel NULL pointer dereference, address: 0"
    )


@pytest.mark.parametrize(
    "header",
    [
        "invalid opcode: 0000 [#1] PREEMPT NOPTI",
        "Oops: invalid opcode: 0000 [#1] PREEMPT NOPTI",  # 6.9 and newer
        "divide error: 0000 [#2] SMP",
        "general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]",
    ],
)
def test_a_crash_of_any_cause(header):
    made = console(f"[    0.1] sda: 0000 [x]\n[    1.2] {header}\n[    1.3] CPU: 0\n".encode())
    assert made.panic() == header
    assert made.crash().splitlines() == made.text().splitlines()


def test_an_oops_without_a_panic():
    assert console(b"[  1.2] Oops: 0002 [#1] SMP\n[ 1.3] more\n").panic() == "Oops: 0002 [#1] SMP"
    assert console(b"[  1.2] kernel BUG at mm/userfaultfd.c:123!\n").panic() == "kernel BUG at mm/userfaultfd.c:123!"


def test_no_panic():
    assert console(b"all is well\nDEBUG: fine\n").panic() == ""


def test_the_crash_is_shown_from_shortly_before_its_first_line():
    made = console(
        b"".join(b"before %d\n" % number for number in range(50))
        + b"[    1.2] Oops: 0002 [#1] SMP\n"
        + b"".join(b"trace %d\n\n" % number for number in range(60))
        + b"[    1.4] Kernel panic - not syncing: Fatal exception\n"
    )
    lines = made.crash().splitlines()
    assert lines[0] == "before 40"
    assert lines[10] == "[    1.2] Oops: 0002 [#1] SMP"
    assert lines[-1] == "[    1.4] Kernel panic - not syncing: Fatal exception"
    assert len(made.crash(10).splitlines()) == 10
    assert console(b"fine\n").crash() == "fine"
