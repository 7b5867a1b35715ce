"""A kernel in a Debian that Vagrant brings up."""
