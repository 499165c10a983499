"""Data set on disk -> image and class tables."""
