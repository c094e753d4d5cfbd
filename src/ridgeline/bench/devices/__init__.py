"""Devices that this process can measure."""
