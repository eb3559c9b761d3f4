"""Read and write notebooks: on a server, uploaded, on disk, in memory."""
