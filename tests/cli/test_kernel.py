"""The output and exit status of `uffdlab kernel`."""

from __future__ import annotations

import hashlib

import pytest
from click.testing import CliRunner

from tests.kernels.tiny_kernel import elf
from uffdlab.cli.main import main
from uffdlab.cli.parameters import KernelName
from uffdlab.kernels import lookup
from uffdlab.kernels.images import Finished, Images, Kernel


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


@pytest.fixture
def mine(tmp_path):
    """Return a kernel of this name that was imported into the cache."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "vmlinux").write_bytes(elf())
    kernel = Kernel("mine", made / "vmlinux", "6.1.0-test", "ab" * 32)
    return Images(tmp_path / "cache" / "images").publish(made, Finished(kernel, imported=True))


def test_a_kernel_goes_to_another_cache_in_a_file(command, mine, tmp_path, monkeypatch):
    listed = command("list").output.splitlines()[-1].split()
    assert listed == ["mine", "6.1.0-test", "(imported)", "not", "in", "this", "catalogue"]
    result = command("export", "@file", "mine")
    digest = hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    assert result.output.splitlines()[-1] == f"{digest}  {tmp_path / 'file'}"
    assert command("remove", "mine").exit_code == 0
    assert "mine" not in command("list").output
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "other"))
    assert command("import", "@file", "--sha256", "ab" * 32).exit_code == 125
    result = command("import", "@file", "--sha256", digest)
    copy = tmp_path / "other" / mine.image.relative_to(tmp_path / "cache")
    assert result.output.splitlines()[-1] == f"mine: Linux 6.1.0-test, {copy}"
    assert command("path", "mine").output == f"{copy}\n"


def test_a_kernel_is_shared_and_stays_when_the_own_one_is_removed(command, mine, tmp_path, monkeypatch):
    result = command("share", "@store", "mine")
    assert f"Everybody who uses them sets UFFDLAB_IMAGES={tmp_path / 'store'}" in result.output
    assert "Other users cannot enter" in result.output  # pytest's folder
    monkeypatch.setenv("UFFDLAB_IMAGES", str(tmp_path / "store"))
    result = command("remove", "mine")
    assert f"the shared kernel stays, {tmp_path / 'store' / mine.image.parent.name}" in result.output
    assert "(shared)" in command("list").output.splitlines()[-1]
    assert command("remove", "mine").exit_code == 2
    lookup.require_known("mine")
    assert "mine" in dict(KernelName().names())
