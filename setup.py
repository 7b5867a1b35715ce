"""What pyproject.toml cannot say: native parts, folders beside the package, man pages, the links of the README."""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# What a user needs besides the code. uffdlab/data_folders.py finds them in a checkout and in a wheel.
DATA = {"kernel-patch": "**/*", "notebooks": "*.ipynb", "vm": "*"}
GENERATED = {"__pycache__", ".ipynb_checkpoints", ".vagrant"}


class BuildPackage(build_py):
    """Copies the folders of DATA into the built package; an editable install reads them from the checkout."""

    def data_copies(self) -> dict[Path, Path]:
        """Return the files to copy, as {target: source}."""
        package = Path(self.build_lib) / "uffdlab" / "data"
        return {
            package / source.relative_to(ROOT): source
            for folder, pattern in DATA.items()
            for source in sorted((ROOT / folder).glob(pattern))
            if source.is_file() and not GENERATED.intersection(source.relative_to(ROOT).parts)
        }

    def run(self) -> None:
        """Copy the code, then the folders."""
        super().run()
        if not self.editable_mode:
            for target, source in self.data_copies().items():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return every file that is built, the copies included."""
        copies = [] if self.editable_mode else [str(target) for target in self.data_copies()]
        return [*super().get_outputs(include_bytecode), *copies]


def long_description() -> str:
    """Return the README for a page that has no files beside it: a link to a file becomes the file's name."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    def plain(match: re.Match[str]) -> str:
        label, target = match[1], match[2].partition("#")[0]
        return label if not target or label.strip("`") == target else f"{label} ({target})"

    text = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)\s]+\)\s*", "", text)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:)([^)\s]+)\)", plain, text)


if __name__ == "__main__":
    setup(
        cffi_modules=["uffdlab/agent/_native_build.py:ffibuilder", "uffdlab/bulk/_build.py:ffibuilder"],
        cmdclass={"build_py": BuildPackage},
        data_files=[("share/man/man1", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/man/*.1")))],
        long_description=long_description(),
        long_description_content_type="text/markdown",
    )
