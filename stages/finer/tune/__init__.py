"""finer.tune: LoRA on the mixture."""
