"""The host's side of the target process: its memory, its userfaultfds, its touches."""
