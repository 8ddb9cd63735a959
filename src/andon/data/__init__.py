"""Data sets, safe decoding, the decoded-image cache and the transforms."""
