"""Any endpoint that speaks OpenAI's chat completions, such as vLLM or Ollama, by configuration only."""
