"""Layouts of published data sets, one module each, as their owners' archives unpack."""
