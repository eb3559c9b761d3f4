"""Pure rules, without sockets, files, clock or event loop."""
