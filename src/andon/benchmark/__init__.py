"""Plan → experiments → store → tables."""
