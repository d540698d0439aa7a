"""A pre step that answers what was answered before, and the post step that remembers it."""
