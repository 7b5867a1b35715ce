"""The console is bounded and safe to print, and finds a panic in its text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.processes.console import Console


def console(data):
    log = Console()
    log.feed(data)
    return log


@given(st.lists(st.binary(max_size=300)))
def test_any_console_output_can_be_printed(pieces):
    log = Console()
    for piece in pieces:
        log.feed(piece)
    text = log.text()
    assert all(char.isprintable() or char in "\n\t " or char == "�" or ord(char) > 159 for char in text)
    assert "\x1b" not in text


def test_printable_text_is_not_changed():
    assert console("[    0.0] Grüße\r\n\tzwei\n".encode()).text() == "[    0.0] Grüße\n\tzwei\n"


def test_the_console_is_bounded_and_has_its_first_and_last_lines():
    log = Console()
    log.feed(b"first line\n")
    for number in range(60_000):
        log.feed(b"line %06d %s\n" % (number, b"x" * 50))
    log.feed(b"last line\n")
    text = log.text()
    assert len(text) < (1 << 20) + 100
    assert text.startswith("first line\n")
    assert text.endswith("last line\n")
    assert "bytes left out" in text
    assert len(log._head) + len(log._tail) <= 1 << 20


def test_one_read_larger_than_the_bound_is_shortened():
    text = console(b"a" + bytes([ord("b")]) * (3 << 20) + b"c").text()
    assert text[0] == "a"
    assert text[-1] == "c"
    assert len(text) < (1 << 20) + 100


def test_the_tail_has_the_last_lines_that_are_not_empty():
    log = console(b"".join(b"%d\n\n" % number for number in range(100)))
    assert log.tail(3) == "97\n98\n99"
    assert console(b"").tail() == ""


def test_a_panic_is_found_with_the_bug_before_it():
    log = console(
        b"[    1.2] BUG: kernel NULL pointer dereference, address: 0\n"
        b"[    1.3] Oops: 0002 [#1] SMP\n"
        b"[    1.4] Kernel panic - not syncing: Fatal exception\n"
    )
    assert log.panic() == (
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
def test_a_crash_of_any_cause_is_found(header):
    log = console(f"[    0.1] sda: 0000 [x]\n[    1.2] {header}\n[    1.3] CPU: 0\n".encode())
    assert log.panic() == header
    assert log.crash().splitlines() == log.text().splitlines()


def test_an_oops_without_a_panic_is_found():
    assert console(b"[  1.2] Oops: 0002 [#1] SMP\n[ 1.3] more\n").panic() == "Oops: 0002 [#1] SMP"
    assert console(b"[  1.2] kernel BUG at mm/userfaultfd.c:123!\n").panic() == "kernel BUG at mm/userfaultfd.c:123!"


def test_other_text_is_no_panic():
    assert console(b"all is well\nDEBUG: fine\n").panic() == ""


def test_the_crash_is_shown_from_shortly_before_its_first_line():
    log = console(
        b"".join(b"before %d\n" % number for number in range(50))
        + b"[    1.2] Oops: 0002 [#1] SMP\n"
        + b"".join(b"trace %d\n\n" % number for number in range(60))
        + b"[    1.4] Kernel panic - not syncing: Fatal exception\n"
    )
    lines = log.crash().splitlines()
    assert lines[0] == "before 40"
    assert lines[10] == "[    1.2] Oops: 0002 [#1] SMP"
    assert lines[-1] == "[    1.4] Kernel panic - not syncing: Fatal exception"
    assert len(log.crash(10).splitlines()) == 10
    assert console(b"fine\n").crash() == "fine"
