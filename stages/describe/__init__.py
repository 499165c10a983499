"""Classes and prompts -> descriptions, by asking an LLM. Every answer is paid for once."""
