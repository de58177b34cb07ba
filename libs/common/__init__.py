"""What all services share: no business nouns, no service."""
