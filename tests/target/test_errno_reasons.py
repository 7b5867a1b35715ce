import errno

import pytest

from uffdlab.target.errno_reasons import explain, unaligned_reason
from uffdlab.uapi import IOCTLS, Feature, RegisterMode

CONTINUE = IOCTLS["UFFDIO_CONTINUE"]
MINOR, WP = RegisterMode.MINOR, RegisterMode.WP


@pytest.mark.parametrize(
    ("mode", "registered", "knows", "message"),
    [
        (2, MINOR | WP, False, "does not know UFFDIO_CONTINUE_MODE_WP"),
        (2, MINOR | WP, None, "does not know UFFDIO_CONTINUE_MODE_WP"),  # no other reason remains
        (2, MINOR | WP, True, "more than one mapping"),
        (2, MINOR, None, "'wp'); or this kernel does not know UFFDIO_CONTINUE_MODE_WP"),
        (2, None, None, "first; or this kernel does not know UFFDIO_CONTINUE_MODE_WP"),
        (2, MINOR, True, "registered for WP"),
        (3, MINOR, True, "registered for WP"),
        (0x40, MINOR | WP, True, "UFFDIO_CONTINUE has no mode bits 0x40"),
        (0, None, True, "not registered"),
        (0, MINOR, True, "more than one mapping"),
    ],
)
def test_einval_of_continue_is_explained(mode, registered, knows, message):
    assert message in explain(CONTINUE, errno.EINVAL, mode, registered=registered, knows_continue_wp=knows)


@pytest.mark.parametrize("name", sorted(IOCTLS))
@pytest.mark.parametrize("error", sorted(errno.errorcode))
def test_every_errno_of_every_ioctl_has_a_reason(name, error):
    assert len(explain(IOCTLS[name], error, 0, registered=MINOR, knows_continue_wp=None)) > 10


def test_bit_0_of_writeprotect_is_explained_as_wp():
    text = explain(IOCTLS["UFFDIO_WRITEPROTECT"], errno.EINVAL, 1, registered=MINOR, knows_continue_wp=True)
    assert "registered for WP" in text


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("UFFDIO_CONTINUE", {"start": 0x1008, "len": 0x1000}, "start 0x1008 is unaligned"),
        ("UFFDIO_COPY", {"dst": 0x1008, "src": 0, "len": 0x1000}, "dst 0x1008 is unaligned"),
        ("UFFDIO_COPY", {"dst": 0x1000, "src": 8, "len": 0x1000}, ""),
        ("UFFDIO_MOVE", {"dst": 0x1000, "src": 8, "len": 0x1000}, "src 0x8 is unaligned"),
        ("UFFDIO_CONTINUE", {"start": 0x1000, "len": 100}, "len 0x64 is unaligned"),
        ("UFFDIO_CONTINUE", {"start": 0x1000, "len": 0}, "empty"),
        ("UFFDIO_CONTINUE", {"start": 0x1000, "len": 0x1000}, ""),
        ("UFFDIO_API", {"api": 7}, ""),
    ],
)
def test_the_reason_names_the_field_that_is_unaligned_or_empty(name, values, message):
    found = unaligned_reason(IOCTLS[name], values, 0x1000)
    assert message in found
    assert bool(message) is bool(found)
    if found:
        text = explain(IOCTLS[name], errno.EINVAL, 0, registered=None, knows_continue_wp=True, alignment=found)
        assert text == found


def test_the_reason_names_memory_without_a_page_cache():
    known = {"registered": MINOR, "knows_continue_wp": True}
    assert "anon has none there" in explain(CONTINUE, errno.EINVAL, 0, memory="anon", **known)
    assert "anon is not" in explain(IOCTLS["UFFDIO_REGISTER"], errno.EINVAL, int(MINOR), memory="anon", **known)
    for memory in ("anon-shared", "shmem", "hugetlb"):
        assert "is not:" not in explain(CONTINUE, errno.EINVAL, 0, memory=memory, **known)


def test_a_hole_in_the_source_of_a_move_is_not_explained_by_a_missing_registration():
    move = IOCTLS["UFFDIO_MOVE"]
    assert "allow_src_holes" in explain(move, errno.ENOENT, 0, registered=RegisterMode.MISSING, knows_continue_wp=None)
    assert "not registered" in explain(move, errno.ENOENT, 0, registered=None, knows_continue_wp=None)


def register_reason(error, mode, registered=None, features=None):
    return explain(
        IOCTLS["UFFDIO_REGISTER"], error, mode, registered=registered, knows_continue_wp=True, features=features
    )


def test_the_reason_says_that_rwp_needs_its_feature_and_excludes_wp():
    assert "Feature.RWP" in register_reason(errno.EINVAL, RegisterMode.RWP, features=Feature.THREAD_ID)
    assert "Feature.RWP" not in register_reason(errno.EINVAL, RegisterMode.RWP, features=Feature.RWP)
    assert "share a bit" in register_reason(errno.EINVAL, RegisterMode.WP | RegisterMode.RWP, features=Feature.RWP)


def test_a_registration_that_would_drop_wp_is_not_explained_by_another_userfaultfd():
    assert "registered for WP with this userfaultfd" in register_reason(
        errno.EBUSY, RegisterMode.MINOR, MINOR | RegisterMode.WP
    )
    assert "another userfaultfd" in register_reason(errno.EBUSY, RegisterMode.MINOR)
    assert "another userfaultfd" in register_reason(errno.EBUSY, RegisterMode.WP, RegisterMode.WP)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("UFFDIO_RWPROTECT", errno.ENOENT, "not registered for RWP"),
        ("UFFDIO_WRITEPROTECT", errno.ENOENT, "not registered for WP"),
        ("UFFDIO_SET_MODE", errno.EINVAL, "only Feature.RWP_ASYNC"),
        ("UFFDIO_MOVE", errno.EINVAL, "private anonymous"),
        ("UFFDIO_MOVE", errno.EBUSY, "since a fork"),
        ("UFFDIO_COPY", errno.EBUSY, "another userfaultfd"),
    ],
)
def test_the_reason_for_an_errno_depends_on_the_ioctl(name, error, message):
    assert message in explain(IOCTLS[name], error, 0, registered=MINOR, knows_continue_wp=None)
