import errno

import pytest

from uffdlab.reasons import explain
from uffdlab.uapi import IOCTLS, Feature, RegisterMode

CONTINUE = IOCTLS["UFFDIO_CONTINUE"]
MINOR, WP = RegisterMode.MINOR, RegisterMode.WP


@pytest.mark.parametrize(
    ("mode", "registered", "knows", "words"),
    [
        (2, MINOR | WP, False, "does not know UFFDIO_CONTINUE_MODE_WP"),
        (2, MINOR, True, "registered for WP"),
        (3, MINOR, True, "registered for WP"),
        (0x40, MINOR | WP, True, "0x40 mean nothing to UFFDIO_CONTINUE"),
        (0, None, True, "not registered"),
        (0, MINOR, True, "more than one mapping"),
    ],
)
def test_the_reason_for_einval_of_continue(mode, registered, knows, words):
    assert words in explain(CONTINUE, errno.EINVAL, mode, registered=registered, knows_continue_wp=knows)


@pytest.mark.parametrize("name", sorted(IOCTLS))
@pytest.mark.parametrize("error", sorted(errno.errorcode))
def test_every_errno_of_every_ioctl_has_words(name, error):
    assert len(explain(IOCTLS[name], error, 0, registered=MINOR, knows_continue_wp=None)) > 10


def test_wp_of_writeprotect_is_another_bit_than_wp_of_continue():
    text = explain(IOCTLS["UFFDIO_WRITEPROTECT"], errno.EINVAL, 1, registered=MINOR, knows_continue_wp=True)
    assert "registered for WP" in text


def test_an_unaligned_range_is_said_to_be_one():
    text = explain(CONTINUE, errno.EINVAL, 0, registered=None, knows_continue_wp=True, unaligned=True)
    assert "unaligned" in text


def register(error, mode, registered=None, features=None):
    return explain(
        IOCTLS["UFFDIO_REGISTER"], error, mode, registered=registered, knows_continue_wp=True, features=features
    )


def test_rwp_needs_its_feature_and_no_wp_beside_it():
    assert "Feature.RWP" in register(errno.EINVAL, RegisterMode.RWP, features=Feature.THREAD_ID)
    assert "Feature.RWP" not in register(errno.EINVAL, RegisterMode.RWP, features=Feature.RWP)
    assert "share a bit" in register(errno.EINVAL, RegisterMode.WP | RegisterMode.RWP, features=Feature.RWP)


def test_a_registration_that_would_drop_wp_is_not_blamed_on_another_userfaultfd():
    assert "registered for WP with this userfaultfd" in register(
        errno.EBUSY, RegisterMode.MINOR, MINOR | RegisterMode.WP
    )
    assert "another userfaultfd" in register(errno.EBUSY, RegisterMode.MINOR)
    assert "another userfaultfd" in register(errno.EBUSY, RegisterMode.WP, RegisterMode.WP)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("UFFDIO_RWPROTECT", errno.ENOENT, "not registered for RWP"),
        ("UFFDIO_WRITEPROTECT", errno.ENOENT, "not registered for WP"),
        ("UFFDIO_SET_MODE", errno.EINVAL, "RWP_ASYNC alone"),
        ("UFFDIO_MOVE", errno.EINVAL, "private anonymous"),
        ("UFFDIO_MOVE", errno.EBUSY, "since a fork"),
        ("UFFDIO_COPY", errno.EBUSY, "another userfaultfd"),
    ],
)
def test_what_an_errno_means_to_one_ioctl(name, error, words):
    assert words in explain(IOCTLS[name], error, 0, registered=MINOR, knows_continue_wp=None)
