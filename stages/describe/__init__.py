"""Classes and a prompt source -> descriptions, by asking an LLM; every answer is paid for once."""
