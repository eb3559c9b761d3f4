"""The state machine that executes a notebook's cells: messages and time in, effects out."""
