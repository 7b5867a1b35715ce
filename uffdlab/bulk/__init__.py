"""Operations on large amounts of memory in C, on the host: read and decode page-table entries, sum a guest's RAM."""
