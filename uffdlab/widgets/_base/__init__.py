"""What all widgets share: traits, controls, background work, what follows a lab's life."""
