"""The key by which a kernel is found in the cache."""

from __future__ import annotations

import pytest
from tiny_kernel import PATCH

from uffdlab.kernels import build, host_checks
from uffdlab.kernels.cache_key import key_of


@pytest.mark.parametrize(
    "change",
    [
        lambda lab, _: (lab.toml.parent / "two.patch").write_text(PATCH + "\n"),
        lambda lab, _: (lab.toml.parent / "lab.config").write_text("CONFIG_USERFAULTFD=y\n"),
        lambda lab, _: lab.toml.write_text(lab.toml.read_text().replace('"-two"', '"-three"')),
        lambda _, monkeypatch: monkeypatch.setattr(host_checks, "toolchain", lambda: "another compiler"),
        lambda _, monkeypatch: monkeypatch.setattr(build, "RECIPE", build.RECIPE + 1),
        lambda lab, _: lab.archive.versions.update({"linux-source-tiny": "6.1.0-2"}),
    ],
    ids=["patch", "config", "localversion", "toolchain", "recipe", "source"],
)
def test_the_key_changes_with_every_input(lab, monkeypatch, change):
    def key():
        entry = lab.supply()._kernels["tiny-two"]
        return key_of(entry, lab.archive.resolve(entry.package, entry.suites, None, None))

    before = key()
    assert before == key()
    change(lab, monkeypatch)
    assert key() != before
