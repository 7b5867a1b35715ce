"""A target that lies: whatever it says of its beacon, its facts and its pages, only our errors come out."""

import contextlib
import copy
import random
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from uffdlab.errors import MachineLost, UffdlabError
from uffdlab.machines.rpc import decoding
from uffdlab.machines.rpc.framing import Malformed
from uffdlab.uapi.protocol.target import MapMemory
from uffdlab.witnesses import selection
from uffdlab.witnesses.selection import WitnessSelection

START = 0x10_0000_0000
JUNK = (
    *(None, True, 0, 1, -1, -4096, 4096, 1 << 56, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 70, 1.5, float("nan")),
    *("x", b"x", bytes(24), bytes(32), b"\xff" * 32, b"\xff" * 96, [], [1, 2], {}, {"why_not": ""}, {"answered": -1}),
    *({"answered": 1 << 40}, {"answered": "x"}, {"missing": 1}),
)


def truth(method, chance):
    """What a target would say that does not lie, of four pages; what it reads is anything."""
    entry = chance.getrandbits(64)
    return {
        "target.beacon": {
            "address": 0x8_0000_0000,
            "pid": 1,
            "tracks_soft_dirty": True,
            "scan": {"answered": 0x3FF},
            "entries": {"why_not": ""},
        },
        "target.pagemap": {"entries": chance.randbytes(32), "hugetlb": False, "vma_soft_dirty": False, "time_ns": 1},
        "target.scan": {
            "runs": np.array(_runs(chance), dtype="<u8").tobytes(),
            "vma_soft_dirty": False,
            "time_ns": 1,
        },
        "target.entries": {"entries": struct.pack("<QII", entry, 1, 0) * 4, "time_ns": 1},
        "target.map": {"number": 1, "start": START, "alias": 0x20_0000_0000},
        "target.spin": 0,
        "target.spin_stop": None,
    }[method]


def _runs(chance):
    # Those of four pages, or any: that overlap, lie elsewhere, are of no whole pages, or end before they begin.
    if chance.random() < 0.5:
        return [START, START + 4 * 4096, chance.getrandbits(64)]
    edges = [0, START - 4096, START, START + 1, START + 4096, START + 4 * 4096, START + 8 * 4096, (1 << 64) - 1]
    return [chance.choice([*edges, chance.getrandbits(64)]) for _ in range(3 * chance.randrange(5))]


def lie(answer, chance):
    """Something else in its place, or in that of a part of it."""
    if not isinstance(answer, dict) or chance.random() < 0.2:
        return chance.choice(JUNK)
    answer = copy.deepcopy(answer)
    for _ in range(chance.randrange(1, 3)):
        name = chance.choice([*answer, "at", "more"])
        if chance.random() < 0.2:
            answer.pop(name, None)
        else:
            answer[name] = chance.choice(JUNK)
    return answer


class Liar:
    """A target whose answers go the way of all answers from the wire."""

    def __init__(self, chance):
        self.chance = chance

    def ask(self, request, **_):
        """Answer, truly or not."""
        raw = truth(request.method, self.chance)
        try:
            return decoding.answer(request, lie(raw, self.chance) if self.chance.random() < 0.5 else raw)
        except Malformed as error:
            raise MachineLost(str(error)) from error


class Ram:
    """A guest's memory with nothing to be found in it, or nonsense."""

    def __init__(self, chance):
        self.entries = np.frombuffer(chance.randbytes(64 * 4096), dtype=np.uint64).reshape(64, 512)

    def ram(self):
        """Return the entries, and how many frames lie below 4 GiB."""
        return self.entries, 64

    def root_candidates(self):
        """Return a root that may be none."""
        return [(4096, 4)]

    @contextlib.contextmanager
    def paused(self):
        """Do nothing."""
        yield


def asked(chance, name):
    """Ask a witness of four pages; return whether it answered."""
    liar = Liar(chance)
    witnesses = WitnessSelection(liar.ask, lambda: Ram(chance), lambda: 1, kernel="k", machine="m")
    witnesses.new_target(bytes(32))
    try:
        mapped = liar.ask(MapMemory("shmem", 4, 4096))
        mapping = SimpleNamespace(name="r", start=mapped.start, pages=4, page_size=4096, lost=None)
        if name in (None, "physical"):
            witnesses.witness("physical")._finder._deadline = 0.0
        where = SimpleNamespace(mapping=mapping, first=0, count=4)
        snapshot, _ = witnesses.read(where, name)
        str(snapshot), snapshot.frames(), snapshot.to_csv(), snapshot.to_dict()
    except UffdlabError:
        return False
    return True


@pytest.mark.parametrize("name", [None, *selection.NAMES])
@pytest.mark.parametrize("rounds", [pytest.param(150, id="few"), pytest.param(4000, id="many", marks=pytest.mark.long)])
def test_only_our_errors_come_out(name, rounds, monkeypatch):
    monkeypatch.setattr(selection, "_READ_FROM_RAM_FROM", 0)
    answered = sum(asked(random.Random(seed), name) for seed in range(rounds))
    assert answered < rounds
    assert answered > 0 or name == "physical"
