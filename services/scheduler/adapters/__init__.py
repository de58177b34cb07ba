"""The edges of the scheduler: MongoDB and gRPC."""
