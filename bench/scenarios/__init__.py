"""The scenarios: each starts its own system, loads it, and returns results."""
