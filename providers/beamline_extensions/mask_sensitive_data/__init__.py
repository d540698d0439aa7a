"""A post step that masks personal data in answers."""
