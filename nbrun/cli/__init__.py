"""The command line: click's front door."""
