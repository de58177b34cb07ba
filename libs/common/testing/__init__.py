"""Doubles of the common ports for tests; contract tests hold them to what the real ones do."""
