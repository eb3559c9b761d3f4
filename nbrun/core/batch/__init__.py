"""Pure rules of a batch: the matrix, output paths, order, shards, retries, cache keys."""
