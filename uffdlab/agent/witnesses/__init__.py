"""The witnesses that the target itself can ask about its pages."""
