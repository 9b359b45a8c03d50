"""A run: configuration, processes, command line."""
