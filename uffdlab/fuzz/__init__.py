"""Random calls, each held against a model of what the pages, the answer and the messages should be."""
