"""``python -m uffdlab``."""

from uffdlab.cli.main import main

main()
