"""``python -m uffdlab``."""

from uffdlab.cli import main

main()
