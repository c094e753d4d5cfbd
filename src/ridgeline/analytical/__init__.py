"""What the hardware could do: problems and their work, devices and their ceilings, bounds, and pure statistics."""
