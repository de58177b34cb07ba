"""Gates that all executors share, in Redis: the scripts that decide, and what calls them."""
