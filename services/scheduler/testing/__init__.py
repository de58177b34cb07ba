"""Doubles of the scheduler's ports for tests; the contract tests hold them to what the real adapters do."""
