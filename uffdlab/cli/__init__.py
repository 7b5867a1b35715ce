"""The command line: one module for each command or group; :mod:`uffdlab.cli.main` has the list."""
