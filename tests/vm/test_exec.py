"""Programs in real guests: `uffdlab exec` and lab.exec()."""

import queue
import shutil
import subprocess
import threading

import pytest
from click.testing import CliRunner

from uffdlab.cli.main import main
from uffdlab.errors import GuestPanic, ProgramError
from uffdlab.lab import Lab

pytestmark = pytest.mark.vm

C_PROGRAM = """
#include <stdio.h>
#include <math.h>
#include <pthread.h>
#include <unistd.h>
static void *wait_long(void *unused) { for (;;) pause(); }
int main(int count, char **arguments)
{
    pthread_t thread;
    pthread_create(&thread, NULL, wait_long, NULL);
    pthread_cancel(thread);
    pthread_join(thread, NULL);
    printf("%.3f %s\\n", cos(count - 1), arguments[1]);
    return 3;
}
"""


def test_exec_returns_the_output_and_status_of_a_program(lab):
    assert lab.exec(["uname", "-r"]).text == lab.release + "\n"
    assert lab.exec(["sh", "-c", "exit 7"]).status == 7


@pytest.mark.long
def test_exec_runs_on_every_kernel(any_lab):
    assert any_lab.exec(["uname", "-r"]).text == any_lab.release + "\n"
    assert any_lab.exec(["sh", "-c", "exit 7"]).status == 7
    assert any_lab.exec(["sh", "-c", "kill -9 $$"]).status == 137


def test_exec_runs_beside_other_calls(lab):
    output, results = queue.SimpleQueue(), queue.SimpleQueue()
    line = "echo started; while [ -d . ]; do [ -e /tmp/go ] && exit 4; done"
    thread = threading.Thread(
        target=lambda: results.put(lab.exec(["sh", "-c", line], on_output=lambda _stream, data: output.put(data)))
    )
    thread.start()
    assert output.get(timeout=60) == b"started\n"
    region = lab.map(pages=4)
    region.alias.fill(7)
    assert region.snapshot().witness
    region.unmap()
    lab.exec(["touch", "/tmp/go"])
    assert results.get(timeout=60).status == 4
    thread.join(60)
    lab.exec(["rm", "/tmp/go"])
    assert any(entry.kind == "exec" and "status 4" in entry.text for entry in lab.timeline)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_a_pushed_program_brings_its_libraries(lab, tmp_path):
    program = tmp_path / "cosine"
    subprocess.run(["cc", "-x", "c", "-", "-o", program, "-lm"], input=C_PROGRAM.encode(), check=True)
    done = lab.exec(["cosine", "0"], push=[program])
    assert (done.status, done.text) == (3, "0.540 0\n")


def test_errors_leave_the_lab_usable(lab):
    with pytest.raises(ProgramError, match="no program 'no-such-thing' in the guest"):
        lab.exec(["no-such-thing"])
    with pytest.raises(ProgramError, match="did not end by its deadline"):
        lab.exec(["sleep", "1000"], deadline=0.3)
    assert lab.exec(["sh", "-c", "ls -d /tmp/uffdlab-*"]).text.count("\n") == 1  # that of this call
    assert lab.exec(["ps"]).text.count("sleep") == 0


def test_a_program_that_crashes_the_kernel_is_reported():
    with Lab("6.1-series") as lab, pytest.raises(GuestPanic, match="sysrq triggered crash") as caught:
        lab.exec(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"])
    assert "Kernel panic" in caught.value.console


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["6.1-series", "--", "sh", "-c", "echo text; exit 7"], 7, "text\n"),
        (["6.1-series", "--", "no-such-thing"], 127, "no program"),
        (["6.1-series", "--deadline", "0.3", "--", "sleep", "1000"], 124, "it had 0.3 s"),
        (["no-such-kernel", "--", "true"], 2, "no kernel is called"),
        (["6.1-series"], 2, "Missing argument"),
    ],
)
def test_the_exec_command_has_the_right_status_and_output(arguments, status, expected):
    result = CliRunner().invoke(main, ["exec", *arguments])
    assert (result.exit_code, expected in result.output) == (status, True), result.output
