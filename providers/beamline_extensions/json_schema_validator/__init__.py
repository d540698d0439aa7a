"""A post step that checks a provider's answer against a JSON Schema."""
