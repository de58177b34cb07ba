"""Other schedulers under the same load, in the same run: their programs, and what starts and measures them.

`*_program.py` run in an environment of their own (requirements-bench.lock), with nothing of ours but the sink.
"""
