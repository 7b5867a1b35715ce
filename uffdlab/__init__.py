"""uffdlab: a lab bench for userfaultfd."""
