"""A whole Punctual in one thread and virtual time: see `tests/simulation/README.md`."""
