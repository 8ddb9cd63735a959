"""The command line: one module a command group. It parses, calls and prints; it computes nothing."""
