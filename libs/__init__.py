"""Libraries: common to all services, generated from the protos, and for clients."""
