"""Compile the extension modules as their build files do, with any compiler and further flags."""

import runpy
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD_FILES = ("uffdlab/agent/_native_build.py", "uffdlab/bulk/_build.py")


class Extension:
    """One extension module.

    Parameters
    ----------
    build_file : str
        One of BUILD_FILES.
    folder : Path
        The folder for the code that cffi generates.

    Attributes
    ----------
    generated : Path
        The generated code.
    sources : list of Path
        The sources of this project.
    flags : list of str
        The flags with which all of them are compiled.
    """

    def __init__(self, build_file, folder):
        extension = runpy.run_path(str(ROOT / build_file))["ffibuilder"].distutils_extension(str(folder), verbose=False)
        generated, *sources = extension.sources
        self.generated, self.sources = Path(generated), [ROOT / path for path in sources]
        self.flags = [
            *extension.extra_compile_args,
            *(f"-I{ROOT / path}" for path in extension.include_dirs),
            f"-I{sysconfig.get_path('include')}",
        ]
        self.path = Path(*extension.name.split(".")).with_suffix(".abi3.so")
        self._link = extension.extra_link_args

    def link(self, compiler, flags, package_root):
        """Compile and link the module below `package_root`."""
        output = Path(package_root) / self.path
        files = [self.generated, *self.sources]
        run(compiler, "-shared", "-fPIC", *self.flags, *flags, *files, "-o", output, *self._link)


def run(*command):
    """Run a command; return its stderr, which is empty if a compiler reports nothing."""
    done = subprocess.run(
        [str(argument) for argument in command], capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stderr
