"""The data that the widgets show: page codes, timeline lanes, packed columns, ioctl calls."""
