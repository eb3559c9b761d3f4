"""Run one notebook or many, from load to teardown."""
