"""Client of a Jupyter server: files, kernels, sessions, HTTP and websockets."""
