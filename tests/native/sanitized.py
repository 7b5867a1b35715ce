"""Run tests with the native parts built with AddressSanitizer and UndefinedBehaviorSanitizer.

``python tests/native/sanitized.py PYTEST-ARGUMENT…``.  A copy of the package is built in build/sanitized.  The agents
that tests start on this host, and their targets and children, use this copy too.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from compiling import BUILD_FILES, ROOT, Extension

# Undefined behaviour raises SIGILL, which AddressSanitizer reports: UBSan cannot write its reports to a file.
FLAGS = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fsanitize-undefined-trap-on-error")
FOLDER = ROOT / "build" / "sanitized"
DESELECTED = (
    # They send SIGSEGV on purpose, which would be reported.
    "test_programs.py::test_a_program_ended_by_a_signal_has_128_plus_its_number_as_status[SEGV-139]",
    "test_withdrawal.py::test_a_signal_from_another_process_is_distinguished_from_one_of_the_access",
    # A sanitized build makes too few calls in its two seconds.
    "test_random_calls.py::test_random_calls_count_unknown_results_and_go_on",
)
REPORTS = FOLDER / "reports"


def build():
    """Return the folder of a copy of the package whose native parts are sanitized."""
    library = FOLDER / "lib"
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(ROOT / "uffdlab", library / "uffdlab", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for build_file in BUILD_FILES:
        Extension(build_file, FOLDER / "generated").link("gcc", FLAGS, library)
    # AddressSanitizer uses the addresses up to 16 TiB.
    _change(library / "uffdlab" / "target" / "process.py", "_BASE = 0x10_0000_0000", "_BASE = 0x2000_0000_0000")
    # The agents then read PYTHONMALLOC, so that memory that cffi allocates has red zones too.
    _change(library / "uffdlab" / "machines" / "local.py", '"-ISB"', '"-sSB"')
    return library


def _change(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, path
    path.write_text(text.replace(old, new))


def environment(library):
    """Return the environment of the tests."""
    # Without the C++ library loaded first, C++ exceptions, such as those of matplotlib, end the process.
    found = (
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    )
    REPORTS.mkdir(mode=0o777)
    REPORTS.chmod(0o1777)  # agents of other users write reports too
    options = f"log_path={REPORTS}/report:exitcode=77:handle_sigill=1"
    return {
        **os.environ,
        "PYTHONPATH": f"{library}:{Path(__file__).parent}",
        "PYTHONSAFEPATH": "1",  # otherwise the current folder would come first
        "PYTHONMALLOC": "malloc",
        "LD_PRELOAD": " ".join(found),
        # No detection of leaks: the interpreter does not free all its memory at its end.
        "ASAN_OPTIONS": f"{options}:detect_leaks=0:detect_stack_use_after_return=1",
        "UFFDLAB_SANITIZER_REPORTS": str(REPORTS),
    }


def main(arguments):
    """Build, and replace this process by pytest."""
    variables = environment(build())
    os.chdir(ROOT)
    deselected = [f"--deselect=tests/agent/{test}" for test in DESELECTED]
    command = [sys.executable, "-m", "pytest", "-p", "sanitizer_reports", *deselected, *arguments]
    os.execve(sys.executable, command, variables)


if __name__ == "__main__":
    main(sys.argv[1:])
