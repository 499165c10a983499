"""finer.mixture: conversations to tune on."""
