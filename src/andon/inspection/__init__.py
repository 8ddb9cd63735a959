"""Calibration, the inspector file, export and the service (to come)."""
