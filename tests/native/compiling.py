"""Compiles the native parts as their build files say, by any compiler and with more flags."""

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
        Where the code that cffi makes is put.

    Attributes
    ----------
    generated : Path
        That code.
    sources : list of Path
        Ours.
    flags : list of str
        What all of them are compiled with.
    """

    def __init__(self, build_file, folder):
        made = runpy.run_path(str(ROOT / build_file))["ffibuilder"].distutils_extension(str(folder), verbose=False)
        generated, *sources = made.sources
        self.generated, self.sources = Path(generated), [ROOT / each for each in sources]
        self.flags = [
            *made.extra_compile_args,
            *(f"-I{ROOT / each}" for each in made.include_dirs),
            f"-I{sysconfig.get_path('include')}",
        ]
        self.path = Path(*made.name.split(".")).with_suffix(".abi3.so")
        self._link = made.extra_link_args

    def link(self, compiler, flags, package_root):
        """Make the module below `package_root`."""
        to = Path(package_root) / self.path
        files = [self.generated, *self.sources]
        run(compiler, "-shared", "-fPIC", *self.flags, *flags, *files, "-o", to, *self._link)


def run(*command):
    """Run it; return what it said on stderr, which is empty if a compiler has nothing to say."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stderr
