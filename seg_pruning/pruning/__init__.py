"""Which channels leave, and when."""
