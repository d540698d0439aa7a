"""Commands, grouped by what they touch. Each module adds its own to the application."""
