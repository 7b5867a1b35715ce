"""What is done in C to much memory at a time, on the host: page-table entries by the million, sums of a guest's RAM."""
