"""The executor's edges: the scheduler's gRPC API, the stream, the targets, the machine's timers."""
