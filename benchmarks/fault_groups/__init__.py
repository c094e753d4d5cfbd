"""Groups of faults; each injects them for real and says what became of every one."""
