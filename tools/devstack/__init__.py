"""The whole of Punctual on one machine: real servers and services as child processes.

`python -m tools.devstack` (`make run`) shows the main job; the tests and the benchmarks use the servers one by one.
Every child is started through `process`, so none can outlive the process that started it.
"""
