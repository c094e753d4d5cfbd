"""Calibration: from bounds to predictions, on public measurements, with intervals that were checked on what was left out."""
