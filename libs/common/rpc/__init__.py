"""gRPC as every service speaks it: servers, channels, errors that cross the wire, and health."""
