"""finer.concepts: what is visible of each class, from a language model or a published file."""
