"""Patches as they come by mail: read, fitted to a tree, applied."""
