"""Modules that cannot be imported where this folder is in PYTHONPATH, as if they were not installed.

Each costs a server or a kernel up to a second at its start. They are optional: ipykernel needs them for its debugger,
and jsonschema for formats that Jupyter does not use.
"""
