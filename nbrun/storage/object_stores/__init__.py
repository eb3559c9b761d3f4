"""Object stores: folders, S3, Google Cloud Storage, Azure, web servers, fsspec."""
