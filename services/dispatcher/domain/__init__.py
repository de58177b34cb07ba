"""Pure rules of the dispatcher: in which order held entries go out, and when more are taken in."""
