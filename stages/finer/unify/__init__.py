"""finer.unify: images and classes -> the published format, split."""
