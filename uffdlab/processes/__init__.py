"""Child processes of the host that do not outlive us, who they are, and what they may use."""
