"""finer.probe: what the projector loses."""
