"""Progress in a log, a terminal and a notebook."""

from __future__ import annotations

import io
import sys

import IPython.display
import pytest
from rich.console import Console

from uffdlab.kernels import progress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def report_a_build(reporter, clock=None):
    reporter.start("6.1-x", "not here yet, building it")
    reporter.stage("fetching", 139_000_000, "bytes")
    reporter.at(70_000_000)
    reporter.stage("compiling", 1000, "objects")
    for done in range(0, 1001, 10):
        if clock:
            clock[0] += 1
        reporter.at(done)
    reporter.finish("ready, 101 s")
    reporter.close()
    reporter.close()


def test_a_line_is_printed_at_most_every_ten_seconds(clock):
    stream = io.StringIO()
    report_a_build(progress.LineProgress(stream), clock)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "6.1-x: not here yet, building it"
    assert lines[-1] == "6.1-x: ready, 101 s"
    assert lines[1] == "6.1-x: compiling 90/1000 objects (9 %)"
    assert len(lines) == 12


def test_a_terminal_shows_a_bar_and_at_the_end_a_line():
    stream = io.StringIO()
    report_a_build(progress.TerminalProgress(Console(file=stream, force_terminal=True, width=100)))
    output = stream.getvalue()
    assert "compiling" in output
    assert "1000/1000 objects" in output
    assert "6.1-x: ready, 101 s" in output
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h")  # the cursor is shown again


def test_a_notebook_shows_a_bar_and_at_the_end_a_line(monkeypatch, clock):
    pages = []

    class Handle:
        def update(self, page, *, raw):
            assert raw
            pages.append(page["text/html"])

    def display(page, *, raw, display_id):
        assert raw
        assert display_id
        pages.append(page["text/html"])
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    report_a_build(progress.NotebookProgress(), clock)
    assert any('<progress aria-label="compiling" value="500" max="1000"' in page for page in pages)
    assert any("fetching 0/139 MB (0 %)" in page for page in pages)
    assert "<progress" not in pages[-1]
    assert "ready, 101 s" in pages[-1]


def test_a_log_gets_lines_and_a_terminal_bars(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(progress.automatic(), progress.LineProgress)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(progress.automatic(), progress.TerminalProgress)


def test_a_notebook_gets_pages(monkeypatch):
    class Shell:
        kernel = object()

    monkeypatch.setattr(IPython, "get_ipython", Shell)
    assert isinstance(progress.automatic(), progress.NotebookProgress)


def test_without_a_total_no_fraction_is_shown():
    stream = io.StringIO()
    reporter = progress.LineProgress(stream)
    reporter.stage("package lists")
    reporter.at(12)
    assert "/" not in stream.getvalue()
    assert "%" not in stream.getvalue()
