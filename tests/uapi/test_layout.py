"""Arguments of ioctls are packed, and messages decoded.  Request numbers are tested in test_flags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.uapi.layout import EVENT_PAGEFAULT, LAYOUTS, USERFAULTFD_IOC_NEW, decode


def test_the_request_number_of_the_device_is_that_of_the_abi():
    assert USERFAULTFD_IOC_NEW == 0xAA00


@given(st.sampled_from(sorted(LAYOUTS)), st.data())
def test_unpacked_arguments_equal_the_packed_ones(name, data):
    ioctl = LAYOUTS[name]
    values = {field: data.draw(st.integers(0, 2**64 - 1)) for field in ioctl.fields}
    if ioctl.output:
        values[ioctl.output] = data.draw(st.integers(-(2**63), 2**63 - 1))
    packed = ioctl.pack(values)
    assert len(packed) == ioctl.size
    assert ioctl.unpack(packed) == values


@given(st.binary(min_size=32, max_size=32))
def test_any_message_is_decoded(data):
    event, arg = decode(data)
    assert event == data[0]
    if event == EVENT_PAGEFAULT:
        assert arg == (
            int.from_bytes(data[8:16], "little"),
            int.from_bytes(data[16:24], "little"),
            int.from_bytes(data[24:28], "little"),
        )


@given(st.binary().filter(lambda data: len(data) != 32))
def test_a_message_of_another_size_is_refused(data):
    with pytest.raises(ValueError, match="32 bytes"):
        decode(data)
