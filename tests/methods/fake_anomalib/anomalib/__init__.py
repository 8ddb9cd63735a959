"""A stand-in with the interface of anomalib 2.6: what Andon's adapter calls, and what models call back."""

__version__ = "2.6.0"
