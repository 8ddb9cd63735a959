"""Andon learns what good parts look like from good pictures alone, finds the bad ones and shows where they are bad."""

__version__ = "0.1.0"
