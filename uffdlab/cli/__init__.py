"""The command line: one module a group of commands; :mod:`uffdlab.cli.main` puts them together."""
