"""Rules of a batch: matrix, output paths, order, shards, retries, cache keys."""
