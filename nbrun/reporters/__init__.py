"""Listeners that tell a person or a machine how a run goes; none knows the network."""
