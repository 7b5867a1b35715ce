"""A pytest plugin that breaks the client in one way a test, for tests/vm/test_behaviours_can_fail.py.

What is broken stands for a kernel that does not do what it must: an ioctl that loses a flag, a mark that is not kept.
"""

import json
import os
from pathlib import Path

import pytest

from uffdlab.target.child import Child
from uffdlab.target.pages import Pages
from uffdlab.target.userfaultfd import Userfaultfd
from uffdlab.uapi import Feature


def without(patch, kind, method, **changed):
    """Let a method be called with other keywords than the test gives."""
    right = getattr(kind, method)
    patch.setattr(kind, method, lambda self, *arguments, **given: right(self, *arguments, **{**given, **changed}))


def instead(patch, kind, method, call):
    """Let a method do something else."""
    patch.setattr(kind, method, call)


def without_feature(patch, feature):
    """Do not ask for a feature, and let nobody notice."""
    right = Userfaultfd.open

    def without_it(target, features):
        return right(target, None if features is None else Feature(int(features) & ~int(feature)))

    patch.setattr(Userfaultfd, "open", without_it)


def advice(patch, wrong):
    """Let madvise(2) do nothing for one advice."""
    right = Pages.start_madvise
    patch.setattr(Pages, "start_madvise", lambda self, what: right(self, "normal" if what == wrong else what))


def child_shows_parent(patch):
    """Show the parent's page tables for the child's."""
    patch.setattr(Child, "snapshot", lambda _, where: where.snapshot("pagemap"))


def register_more(patch):
    """Register for write protection too."""
    right = Userfaultfd.register
    patch.setattr(Userfaultfd, "register", lambda self, where, *modes, **more: right(self, where, *modes, "wp", **more))


def nothing(patch, method):
    """Do not make an ioctl."""
    instead(patch, Userfaultfd, method, lambda *_, **__: None)


def copy_loses_wp(patch):
    """Lose UFFDIO_COPY_MODE_WP."""
    without(patch, Userfaultfd, "copy", wp=False)


def copy_for_zeropage(patch):
    """Map a page that is not empty."""
    instead(patch, Userfaultfd, "zeropage", lambda self, where, check=True: self.copy(where, b"x", check=check))


def copy_for_move(patch):
    """Copy the pages, and leave the source as it is."""

    def move(self, to, from_, *, check=True, **_):
        data = b"".join(from_.mapping.copy_out(from_.first + page) for page in range(from_.count))
        return self.copy(to, data, check=check)

    instead(patch, Userfaultfd, "move", move)


def unread_is_read(patch):
    """Read the messages all the time."""
    import contextlib

    instead(patch, Userfaultfd, "unread", lambda _: contextlib.nullcontext())


#: For each test: which of its cases, and what is broken meanwhile.
BREAKS = {
    "test_register_ioctls": ("shmem", register_more),
    "test_zeropage": ("anon", copy_for_zeropage),
    "test_move": ("anon", copy_for_move),
    "test_move_pmd": ("move-pmd-thp", copy_for_move),
    "test_wp_fork": ("wp-fork-anon", child_shows_parent),
    "test_wp_fork_of_pages_that_are_not_mapped": ("wp-fork-shmem", lambda patch: advice(patch, "dontneed")),
    "test_wp_fork_pin": ("wp-fork-pin-anon", child_shows_parent),
    "test_wp_unpopulated": ("anon", lambda patch: without_feature(patch, Feature.WP_UNPOPULATED)),
    "test_minor": ("minor-wp-shmem", lambda patch: without(patch, Userfaultfd, "continue_", wp=False)),
    "test_minor_collapse": ("after-shmem", lambda patch: advice(patch, "collapse")),
    "test_rwp_async": ("anon", lambda patch: nothing(patch, "set_mode")),
    "test_rwp_sync": ("anon", lambda patch: without(patch, Userfaultfd, "rwprotect", rwp=False)),
    "test_rwp_pagemap": ("anon", lambda patch: without(patch, Userfaultfd, "rwprotect", rwp=False)),
    "test_rwp_mprotect": ("anon", lambda patch: without(patch, Userfaultfd, "rwprotect", rwp=False)),
    "test_rwp_gup": ("anon", lambda patch: without(patch, Userfaultfd, "rwprotect", rwp=False)),
    "test_rwp_gup_waits_where_faults_are_messages": ("anon", lambda patch: nothing(patch, "rwprotect")),
    "test_rwp_async_toggle": ("anon", lambda patch: nothing(patch, "set_mode")),
    "test_rwp_swap_cow": ("anon", lambda patch: without(patch, Userfaultfd, "rwprotect", rwp=False)),
    "test_rwp_close": ("anon", lambda patch: instead(patch, Userfaultfd, "close", lambda _: None)),
    "test_rwp_fork": ("no-event-rwp-fork-anon", child_shows_parent),
    "test_rwp_and_wp_exclude_each_other": ("anon", lambda patch: nothing(patch, "unregister")),
    "test_sigbus": ("sigbus-anon", lambda patch: without_feature(patch, Feature.SIGBUS)),
    "test_events": ("events-wp-anon", copy_loses_wp),
    "test_events_bring_the_faults_of_a_child": ("events-wp-anon", copy_loses_wp),
    "test_poison": ("anon", lambda patch: instead(patch, Userfaultfd, "poison", Userfaultfd.zeropage)),
    "test_every_filling_ioctl_says_eagain_while_an_event_is_unread": ("", unread_is_read),
}  # fmt: skip

_ended = {}


def pytest_collection_modifyitems(items):
    """Keep one case of each test, on the kernel that is asked for."""
    kernel = os.environ["UFFDLAB_BROKEN_KERNEL"]
    wanted = {name: f"{kernel}-{case}" if case else kernel for name, (case, _) in BREAKS.items()}
    items[:] = [
        item for item in items if hasattr(item, "callspec") and item.callspec.id == wanted.get(item.originalname)
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Break the client for the time of the test and its fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        BREAKS[item.originalname][1](patch)
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """Leave nothing of a failed test to the next one: end the target."""
    lab = item.funcargs.get("lab")
    try:
        return (yield)
    finally:
        if lab is not None:
            lab.restart_target()


def pytest_runtest_logreport(report):
    """Keep how each test ended, and why."""
    if report.when == "call" or report.skipped or (report.failed and report.when == "setup"):
        name = report.nodeid.partition("::")[2].partition("[")[0]
        _ended[name] = [report.when, report.outcome, str(report.longrepr)[-2000:]]


def pytest_sessionfinish():
    """Write how the tests ended to the file that the caller named."""
    Path(os.environ["UFFDLAB_BROKEN_REPORT"]).write_text(json.dumps(_ended))
