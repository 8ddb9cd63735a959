"""Image-level and localisation metrics and thresholds: pure functions on arrays."""
