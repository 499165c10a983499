"""embed: images and boxes -> Parquet shards of view embeddings."""
