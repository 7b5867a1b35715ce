"""A pytest plugin for tests/vm/test_behaviours_can_fail.py: for each test it breaks the client in one way.

The broken client behaves like a faulty kernel: an ioctl ignores a flag, or a page loses its uffd-wp mark.
"""

import json
import os
from pathlib import Path

import pytest

from uffdlab.target.child import Child
from uffdlab.target.pages import Pages
from uffdlab.target.userfaultfd import Userfaultfd
from uffdlab.uapi import Feature


def change_keywords(patch, kind, method, **changed):
    """Change some keywords of each call of a method."""
    original = getattr(kind, method)
    patch.setattr(
        kind, method, lambda self, *arguments, **keywords: original(self, *arguments, **{**keywords, **changed})
    )


def replace(patch, kind, method, call):
    """Replace a method."""
    patch.setattr(kind, method, call)


def without_feature(patch, feature):
    """Do not request a feature, without an error."""
    original = Userfaultfd.open

    def open_without(target, features):
        return original(target, None if features is None else Feature(int(features) & ~int(feature)))

    patch.setattr(Userfaultfd, "open", open_without)


def ignore_advice(patch, ignored):
    """Make madvise(2) do nothing for one advice."""
    original = Pages.start_madvise
    patch.setattr(Pages, "start_madvise", lambda self, name: original(self, "normal" if name == ignored else name))


def snapshot_parent_for_child(patch):
    """Return the parent's page-table entries in place of the child's."""
    patch.setattr(Child, "snapshot", lambda _, where: where.snapshot("pagemap"))


def register_wp_too(patch):
    """Register for write protection too."""
    original = Userfaultfd.register
    patch.setattr(Userfaultfd, "register", lambda self, *arguments, **given: original(self, *arguments, "wp", **given))


def skip_ioctl(patch, method):
    """Do not make an ioctl."""
    replace(patch, Userfaultfd, method, lambda *_, **__: None)


def copy_without_wp(patch):
    """Ignore UFFDIO_COPY_MODE_WP."""
    change_keywords(patch, Userfaultfd, "copy", wp=False)


def copy_for_zeropage(patch):
    """Map a page that is not zero."""
    replace(patch, Userfaultfd, "zeropage", lambda self, pages, check=True: self.copy(pages, b"x", check=check))


def copy_for_move(patch):
    """Copy the pages, and leave the source as it is."""

    def move(self, to, from_, *, check=True, **_):
        data = b"".join(from_.mapping.copy_out(from_.first + page) for page in range(from_.count))
        return self.copy(to, data, check=check)

    replace(patch, Userfaultfd, "move", move)


def read_messages_always(patch):
    """Read the messages also while they should stay unread."""
    import contextlib

    replace(patch, Userfaultfd, "unread", lambda _: contextlib.nullcontext())


#: For each test: the case to run, and how to break the client.
BREAKS = {
    "test_register_ioctls": ("shmem", register_wp_too),
    "test_zeropage": ("anon", copy_for_zeropage),
    "test_move": ("anon", copy_for_move),
    "test_move_pmd": ("move-pmd-thp", copy_for_move),
    "test_wp_fork": ("wp-fork-anon", snapshot_parent_for_child),
    "test_wp_fork_of_pages_that_are_not_mapped": ("wp-fork-shmem", lambda patch: ignore_advice(patch, "dontneed")),
    "test_wp_fork_pin": ("wp-fork-pin-anon", snapshot_parent_for_child),
    "test_wp_unpopulated": ("anon", lambda patch: without_feature(patch, Feature.WP_UNPOPULATED)),
    "test_minor": ("minor-wp-shmem", lambda patch: change_keywords(patch, Userfaultfd, "continue_", wp=False)),
    "test_minor_collapse": ("after-shmem", lambda patch: ignore_advice(patch, "collapse")),
    "test_rwp_async": ("anon", lambda patch: skip_ioctl(patch, "set_mode")),
    "test_rwp_sync": ("anon", lambda patch: change_keywords(patch, Userfaultfd, "rwprotect", rwp=False)),
    "test_rwp_pagemap": ("anon", lambda patch: change_keywords(patch, Userfaultfd, "rwprotect", rwp=False)),
    "test_rwp_mprotect": ("anon", lambda patch: change_keywords(patch, Userfaultfd, "rwprotect", rwp=False)),
    "test_rwp_gup": ("anon", lambda patch: change_keywords(patch, Userfaultfd, "rwprotect", rwp=False)),
    "test_rwp_gup_waits_in_synchronous_mode": ("anon", lambda patch: skip_ioctl(patch, "rwprotect")),
    "test_rwp_async_toggle": ("anon", lambda patch: skip_ioctl(patch, "set_mode")),
    "test_rwp_swap_cow": ("anon", lambda patch: change_keywords(patch, Userfaultfd, "rwprotect", rwp=False)),
    "test_rwp_close": ("anon", lambda patch: replace(patch, Userfaultfd, "close", lambda _: None)),
    "test_rwp_fork": ("no-event-rwp-fork-anon", snapshot_parent_for_child),
    "test_rwp_and_wp_exclude_each_other": ("anon", lambda patch: skip_ioctl(patch, "unregister")),
    "test_sigbus": ("sigbus-anon", lambda patch: without_feature(patch, Feature.SIGBUS)),
    "test_events": ("events-wp-anon", copy_without_wp),
    "test_events_with_faults_of_a_child": ("events-wp-anon", copy_without_wp),
    "test_poison": ("anon", lambda patch: replace(patch, Userfaultfd, "poison", Userfaultfd.zeropage)),
    "test_every_resolving_ioctl_returns_eagain_while_an_event_is_unread": ("", read_messages_always),
}  # fmt: skip

_results = {}


def pytest_collection_modifyitems(items):
    """Select one case of each test, on the requested kernel."""
    kernel = os.environ["UFFDLAB_BROKEN_KERNEL"]
    wanted = {name: f"{kernel}-{case}" if case else kernel for name, (case, _) in BREAKS.items()}
    items[:] = [
        item for item in items if hasattr(item, "callspec") and item.callspec.id == wanted.get(item.originalname)
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Break the client during the test and its fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        BREAKS[item.originalname][1](patch)
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """Restart the target, so that a failed test does not affect the next one."""
    lab = item.funcargs.get("lab")
    try:
        return (yield)
    finally:
        if lab is not None:
            lab.restart_target()


def pytest_runtest_logreport(report):
    """Record the outcome of each test, and the reason."""
    if report.when == "call" or report.skipped or (report.failed and report.when == "setup"):
        name = report.nodeid.partition("::")[2].partition("[")[0]
        _results[name] = [report.when, report.outcome, str(report.longrepr)[-2000:]]


def pytest_sessionfinish():
    """Write the outcomes to the file that the caller named."""
    Path(os.environ["UFFDLAB_BROKEN_REPORT"]).write_text(json.dumps(_results))
