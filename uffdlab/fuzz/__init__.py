"""Make random calls, and compare the pages, the answers and the messages with a model."""
