"""What a student types wrong: an error in words, before anything is done, in a notebook of few lines."""

import nbclient
import nbformat
import pytest

import uffdlab
from uffdlab import figures
from uffdlab.errors import UsageError, WrongArguments
from uffdlab.uapi import Feature

MOST_LINES = 6


@pytest.fixture(scope="module")
def names(host_lab):
    region, uffd = host_lab.map(8), host_lab.userfaultfd()
    yield {"lab": host_lab, "region": region, "uffd": uffd, "uffdlab": uffdlab, "figures": figures}
    uffd.close()
    region.unmap()


WRONG = {
    'region.read("5")': r"page='5'\): page is an integer, not text; without quotes: 5",
    'uffd.register(region, ["minor", "wp"])': r"an argument of its own: uffd\.register\(region, 'minor', 'wp'\)",
    "uffd.register(region, True)": "True is no mode",
    'uffd.copy(region[3], "hello")': "data is bytes, not text; with a b before the quotes: b'hello'",
    'lab.map(64, "anon")': r"at most 1 by position \(pages\); by name alone: memory=…, .*lab\.map\(64, memory='anon'\)",
    "uffd.register(region, wp=True)": r"no argument wp.*It takes where, \*modes, check; .*'minor', 'wp'",
    "uffdlab.Lab(memory=64)": "no argument memory; did you mean memory_mib",
    'uffdlab.Lab(memory_mib="64")': "without quotes: 64",
    "uffdlab.Lab(cpus=1.5)": "cpus is an integer, not float",
    "uffdlab.Lab(machine=5)": "machine is text or a machine, not int",
    "uffdlab.compre": "no compre; did you mean compare",
    "uffd.continu(region[6])": r"^uffd has no continu; did you mean continue_\?$",
    "lab.mapp(64)": r"^lab has no mapp; did you mean map\?$",
    "region.bensch()": r"^region has no bensch; dir\(region\) lists what it has$",
    "region.snapshot().presnt": r"^snapshot has no presnt; did you mean present\?$",
    'lab.map(64, memory="shmen")': r"no memory 'shmen'; did you mean shmem\? The kinds are 'anon'",
    'lab.map(64, memory="?")': r"no memory '\?'\. The kinds are",
    'uffd.register(region, "wpp")': r"did you mean wp\? The modes are",
    'uffd.ioctl("UFFDIO_CONTINU", {})': r"did you mean UFFDIO_CONTINUE\? The ioctls are",
    'region.snapshot("pagemapp")': r"did you mean pagemap\? The witnesses are",
    "uffdlab.Lab(6.1)": r"for example uffdlab\.Lab\('6\.1-series'\)",
    "region[:8][0]": r"cannot be cut again; .*region\[0\]",
    "list(region[2:8])": r"cannot be cut again; .*region\[2:8\]",
    'region["3"]': "is not a page number",
    "region.madvise(1 << 70)": r"no advice of madvise\(2\), which takes an int of 32 bits",
    'region.madvise("dontned")': r"no advice of madvise\(2\); known are",
    'lab.map("64")': "without quotes: 64",
    'uffd.read_fault("5")': "timeout is a number",
    "uffd.continue_()": "needs where",
    'uffd.continue_(region, wp="no")': "wp is True or False, not text",
    'uffd.continue_(region, mode="WP")': "mode is an integer",
    'lab.userfaultfd("wp")': r"flags of uffdlab\.uapi\.Feature",
    'lab.exec("ls")': "a list of arguments",
    "lab.exec(5)": "a list of arguments",
    'lab.exec(["ls"], env=5)': "a dict of text by name",
    'lab.exec(["ls"], push="x")': "a list of files",
    'lab.unmap("x")': "a region",
    'lab.ask("ping")': "a request",
    "lab.probe(5)": "one page of a region",
    "lab.bench(foo=5)": "no keyword 'foo'",
    'uffd.wait_for("Fault")': "no kind of message",
    'uffd.ioctl("UFFDIO_WAKE", 3)': "a dict of numbers by name",
    'uffd.set_mode("RWP")': r"flags of uffdlab\.uapi\.Feature",
    "uffd.resume(3)": "the result of an ioctl",
    "uffd.handle(5)": "a function",
    "uffd.subscribe(5)": "a function",
    "region.read(0, by=5)": "a child",
    "region.gup_read(0, into=5)": "one page of a region",
    'region.read(0).result("5")': "timeout is a number",
    "uffdlab.compare(region, region)": r"takes a Snapshot, .*region\.snapshot\(\)",
    "uffdlab.compare(region.snapshot())": "needs after",
    "figures.entry(region, 5)": "takes a Snapshot",
    "region.snapshot()[99]": "has no page 99",
    'region.snapshot()["x"]': "is not a page number",
    "region.snapshot().to_csv(5)": "a path",
}


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_call_is_a_usage_error_in_words(names, call):
    with pytest.raises(UsageError, match=WRONG[call]):
        eval(call, dict(names))


def test_pages_of_another_lab_are_refused(names, mortal_lab):
    """Its regions have the same addresses, so that a call would act on the pages of this lab."""
    lab, uffd, other = names["lab"], names["uffd"], mortal_lab.map(8)
    assert other.start == names["region"].start
    for call in (lab.snapshot, lab.cross_examine, uffd.continue_, uffd.wake, uffd.writeprotect):
        with pytest.raises(UsageError, match=r"region-1 belongs to another lab, <Lab .*: lab\.map\(64\)$"):
            call(other)
    with pytest.raises(UsageError, match="belongs to another lab"):
        uffd.register(other, "missing")
    mortal_lab.close()
    with pytest.raises(UsageError, match="belongs to another lab"):
        lab.cross_examine(other[3])


def test_a_property_that_fails_is_no_unknown_name():
    from uffdlab.arguments import checked

    @checked("thing")
    class Thing:
        @property
        def size(self) -> int:
            return self._size

    with pytest.raises(AttributeError, match="no attribute '_size'"):
        _ = Thing().size


def test_a_right_call_stays_right(names):
    """What was accepted by its nature, not by its type, is accepted still."""
    import numpy as np

    lab, region = names["lab"], names["region"]
    assert region.read(np.int64(3)).result(np.float32(5)) == 0
    assert region.copy_out(page=3, deadline=5) == bytes(4096)
    with lab.userfaultfd(Feature.EVENT_REMOVE) as other:
        assert other.features == Feature.EVENT_REMOVE
        anon = lab.map(2, memory="anon")
        other.register(anon, "missing")
        assert other.copy(anon[0], bytearray(b"x"), wp=np.bool_(False)).ok
        anon.unmap()
    with pytest.raises(TypeError):  # it is one of Python's too
        region.read(0, 0, 0, 0)


def test_an_error_from_within_is_not_taken_for_a_wrong_call():
    from uffdlab.arguments import checked_function

    @checked_function("f")
    def broken(text: str) -> int:
        return len(5)

    with pytest.raises(TypeError) as failed:
        broken("x")
    assert not isinstance(failed.value, WrongArguments)


def executed(tmp_path, monkeypatch, cells):
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, allow_errors=True).execute()
    return notebook.cells


def traceback_of(cell):
    (output,) = (each for each in cell.outputs if each.output_type == "error")
    return "\n".join(output.traceback).splitlines()


SETUP = """\
import logging; logging.disable()
import uffdlab
from uffdlab import figures
lab = uffdlab.Lab(machine="local")
region, uffd = lab.map(8), lab.userfaultfd()"""


def test_a_notebook_shows_the_message_and_the_users_line(names, tmp_path, monkeypatch):
    nested = 'def experiment():\n    return region.read("5")\n\nexperiment()'
    faults = ["uffd.read_fault(timeout=0)", 'uffdlab.Lab("6.1-seris")']
    cells = executed(tmp_path, monkeypatch, [SETUP, *WRONG, *faults, nested, "%xmode Verbose", 'region.read("5")'])
    *short, inner, _, verbose = cells[1:]
    for number, cell in enumerate(short, 2):
        lines = traceback_of(cell)
        assert len(lines) <= MOST_LINES, lines
        assert lines[-1] == f"Cell In[{number}], line 1: {cell.source}"
    assert traceback_of(inner)[-1].endswith('line 2: return region.read("5")')
    assert "arguments.py" in "\n".join(traceback_of(verbose))
