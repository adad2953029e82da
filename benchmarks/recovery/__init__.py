"""Which channels, and how to recover: every criterion and its controls from the same dense networks."""
