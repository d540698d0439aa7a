"""Anthropic's messages, by the official SDK."""
