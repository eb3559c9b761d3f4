"""Kernel messages, their websocket frames, and the handshake."""
