"""The output and exit status of `uffdlab kernel`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from uffdlab.cli.main import main


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setenv("UFFDLAB_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mail").write_text("Looks good to me.\n")
    (tmp_path / "off.config").write_text("# CONFIG_VIRTIO_PCI is not set\n")
    return lambda *arguments: CliRunner().invoke(
        main, ["kernel", *(str(tmp_path / text[1:]) if text.startswith("@") else text for text in arguments)]
    )


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (("am", "@mail", "--on", "6.1-base", "--as", "new"), 125, "contains no patch"),
        (("am", "@none", "--on", "6.1-base", "--as", "new"), 2, "does not exist"),
        (("am", "@mail", "--on", "6.1-base", "--as", "6.1-series"), 125, "there is a kernel 6.1-series already"),
        (("add", "new", "--on", "6.1-base"), 2, "give a patch or a config fragment"),
        (("add", "new", "--on", "6.1-base", "--patch", "@mail"), 125, "has no hunks"),
        (("add", "new", "--on", "6.1-base", "--config", "@off.config"), 125, "does not build in CONFIG_VIRTIO_PCI"),
        (("add", "new"), 2, "give either --on KERNEL or --tree FOLDER"),
        (("add", "new", "--on", "6.1-base", "--tree", "@"), 2, "give either --on KERNEL or --tree FOLDER"),
        (("add", "new", "--tree", "@none"), 2, "does not exist"),
        (("add", "new", "--tree", "@"), 125, "is not the source of a kernel with userfaultfd"),
        (("size", "6.1-base", "debian/trixie"), 125, "debian/trixie comes as a package"),
        (("size", "6.1-base", "none"), 2, "no kernel is called 'none'"),
        (("remove", "new"), 2, "no kernel is called 'new'"),
        (("share", "@store", "none"), 2, "no kernel is called 'none'"),
        (("export", "@file", "none"), 2, "no kernel is called 'none'"),
        (("import", "@mail"), 125, "cannot be imported"),
        (("import", "@none"), 125, "cannot be read"),
    ],
)
def test_a_wrong_command_line_is_refused_with_a_reason(command, tmp_path, arguments, status, reason):
    result = command(*arguments)
    assert (result.exit_code, reason in result.output) == (status, True), result.output
    assert not (tmp_path / "kernels" / "kernels.toml").exists()
