"""The command line: one module for each group of commands, and everything that a terminal shows."""
