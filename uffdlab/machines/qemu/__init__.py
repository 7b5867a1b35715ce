"""A kernel in QEMU: how its command line is made, how it starts, is saved and is restored."""
