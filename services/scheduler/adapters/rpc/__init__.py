"""The gRPC services and the mapping between messages and domain values."""
