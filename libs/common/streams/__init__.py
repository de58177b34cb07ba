"""Redis Streams as a short, losable buffer: opening the connection, and the stream of due executions."""
