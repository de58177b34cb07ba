"""What the scheduler does, one module a capability; they know the domain and their ports, and no technology."""
