"""What the tests of the whole system share: the sink, the processes, the load and the checker."""
