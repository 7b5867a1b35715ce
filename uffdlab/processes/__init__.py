"""Child processes on the host that do not outlive this process, the users they run as, and the host's limits."""
