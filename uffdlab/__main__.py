"""``python -m uffdlab``."""

import os

from uffdlab.cli.main import main

# click derives the variable from the name of the program, which here is "python -m uffdlab".
COMPLETE = "_UFFDLAB_COMPLETE"
main(prog_name="uffdlab" if COMPLETE in os.environ else None, complete_var=COMPLETE)
