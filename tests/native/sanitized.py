"""Runs tests with the native parts built with AddressSanitizer and UndefinedBehaviorSanitizer.

``python tests/native/sanitized.py PYTEST-ARGUMENT…``.  A copy of the package is built in build/sanitized.  The agents
that tests start on this host, and their targets and children, are of that copy, too.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from compiling import BUILD_FILES, ROOT, Extension

# What is undefined is SIGILL, which AddressSanitizer reports: the other one's own reports cannot be sent to a file.
FLAGS = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fsanitize-undefined-trap-on-error")
FOLDER = ROOT / "build" / "sanitized"
DESELECTED = (
    # SIGSEGV is sent on purpose: that is a report.
    "test_programs.py::test_the_end_by_a_signal[SEGV-139]",
    "test_withdrawal.py::test_a_signal_that_somebody_sends_is_no_access_s_end",
    # So much is played in two seconds of a common build.
    "test_random_calls.py::test_random_play_counts_what_is_unknown_and_goes_on",
)
REPORTS = FOLDER / "reports"


def build():
    """Return the folder of a copy of the package whose native parts are sanitized."""
    library = FOLDER / "lib"
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(ROOT / "uffdlab", library / "uffdlab", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for build_file in BUILD_FILES:
        Extension(build_file, FOLDER / "generated").link("gcc", FLAGS, library)
    # The runtime has the addresses up to 16 TiB for itself.
    _change(library / "uffdlab" / "target" / "process.py", "_BASE = 0x10_0000_0000", "_BASE = 0x2000_0000_0000")
    # Its agents heed PYTHONMALLOC, so that what cffi allocates has red zones as well.
    _change(library / "uffdlab" / "machines" / "local.py", '"-ISB"', '"-sSB"')
    return library


def _change(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, path
    path.write_text(text.replace(old, new))


def environment(library):
    """Return the environment of the tests."""
    # The C++ library is there from the start, or no C++ exception gets through, such as those of matplotlib.
    found = (
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    )
    REPORTS.mkdir(mode=0o777)
    REPORTS.chmod(0o1777)  # agents of other users report, too
    options = f"log_path={REPORTS}/report:exitcode=77:handle_sigill=1"
    return {
        **os.environ,
        "PYTHONPATH": f"{library}:{Path(__file__).parent}",
        "PYTHONSAFEPATH": "1",  # else the folder we are in would come first
        "PYTHONMALLOC": "malloc",
        "LD_PRELOAD": " ".join(found),
        # The interpreter frees little of its own at its end.
        "ASAN_OPTIONS": f"{options}:detect_leaks=0:detect_stack_use_after_return=1",
        "UFFDLAB_SANITIZER_REPORTS": str(REPORTS),
    }


def main(arguments):
    """Build, and become pytest."""
    around = environment(build())
    os.chdir(ROOT)
    deselected = [f"--deselect=tests/agent/{test}" for test in DESELECTED]
    command = [sys.executable, "-m", "pytest", "-p", "sanitizer_reports", *deselected, *arguments]
    os.execve(sys.executable, command, around)


if __name__ == "__main__":
    main(sys.argv[1:])
