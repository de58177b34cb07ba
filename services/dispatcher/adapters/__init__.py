"""The dispatcher's edges: the scheduler over gRPC, the due stream over Redis."""
