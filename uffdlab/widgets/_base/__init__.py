"""What all widgets share: traits, controls, background work, and following a lab to its end and restart."""
