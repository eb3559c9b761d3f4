"""Where notebooks are read and written: a server, an upload, a disk, memory."""
