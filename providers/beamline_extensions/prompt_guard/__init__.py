"""A validator that refuses prompts by a deny list and by their size."""
