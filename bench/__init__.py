"""Benchmarks: the whole system under load that comes from here, judged by a sink of its own. Figures, never tests."""
