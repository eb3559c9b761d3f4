"""The state machine that executes the cells: messages and time in, effects out."""
