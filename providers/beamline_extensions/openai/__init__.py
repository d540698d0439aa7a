"""OpenAI's chat completions, by the official SDK."""
