"""The code that runs on the kernel under test: the server, the target and their native core."""
