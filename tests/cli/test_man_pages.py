"""The man pages of docs/man: as the commands' help is now, and as man(1) wants them."""

import os
import shutil
import subprocess

import pytest

from uffdlab.cli.main import COMMANDS

from . import man_pages

PAGES = man_pages.pages()


def test_the_pages_are_up_to_date():
    there = {path.name: path.read_text() for path in man_pages.FOLDER.iterdir()}
    assert there == PAGES, "run: python tests/cli/man_pages.py"


def test_every_command_has_a_page():
    assert {f"uffdlab-{name}.1" for name in COMMANDS} < PAGES.keys()


@pytest.mark.skipif(not shutil.which("man") or not shutil.which("groff"), reason="man-db or groff is not installed")
@pytest.mark.parametrize("page", PAGES)
def test_man_shows_a_page_without_a_warning(tmp_path, page):
    (tmp_path / page).write_text(PAGES[page])
    environment = os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    done = subprocess.run(
        ["man", "--warnings", "--local-file", tmp_path / page],
        env=environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    assert "NAME" in done.stdout
    assert page.removesuffix(".1") in done.stdout


def test_text_that_roff_would_take_for_a_request_is_escaped():
    assert man_pages.escaped(".config of `make -j`") == r"\&.config of \fBmake \-j\fR"
    assert man_pages.escaped("a\\b") == r"a\eb"
