"""The scheduler: owns all stored state and serves the public and the internal API. Replicas are stateless."""
