"""ingest: a data set on disk -> image and class tables."""
