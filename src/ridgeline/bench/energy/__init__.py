"""Energy: meters behind one seam, and the protocol that turns their readings into joules per launch."""
