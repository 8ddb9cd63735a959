"""The tool cupboard of the ground floor: what has nothing to do with images. No domain words here."""
