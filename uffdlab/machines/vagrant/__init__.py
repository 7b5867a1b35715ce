"""A kernel in a Debian VM that Vagrant manages."""
