"""What widgets show, as plain data: page codes, timeline lanes, columns, forms of an ioctl."""
