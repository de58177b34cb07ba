"""The `punctual` command: the whole public API for a terminal and for scripts."""
