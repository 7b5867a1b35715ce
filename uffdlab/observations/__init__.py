"""Observations of pages, as values: snapshots, their differences, page-table walks, write probes."""
