"""The embedded demo: drawn birds of fictional species, and a small CLIP that learned from drawings of others."""
