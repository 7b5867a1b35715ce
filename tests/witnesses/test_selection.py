import errno

import pytest

from uffdlab.errors import WitnessError
from uffdlab.witnesses.selection import WitnessSelection


def test_a_target_that_cannot_start_the_thread_for_its_page_tables_says_why():
    asked = []

    def ask(request, deadline=5.0):
        asked.append(request.method)
        return -errno.EAGAIN

    witnesses = WitnessSelection(ask, lambda: None, lambda: 1, kernel="k", machine="m")
    with pytest.raises(WitnessError, match=r"could not start the thread.*EAGAIN") as caught, witnesses._spinning(1.0):
        pytest.fail("its page tables are in use")
    assert caught.value.witness == "physical"
    assert asked == ["target.spin"]
