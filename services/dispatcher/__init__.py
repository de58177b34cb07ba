"""The dispatcher: moves due execution ids onto Redis Streams at the right moment, and stores nothing."""
