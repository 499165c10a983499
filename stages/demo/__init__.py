"""The embedded demo: drawn birds of fictional species, and a small CLIP trained on drawings of others."""
