"""What the dispatcher does, over ports only: keep partitions, acquire, watch the backlog, deliver."""
