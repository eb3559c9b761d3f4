"""The pure core: kernel messages, outputs, the run's state machine; no socket, file, clock or event loop."""
