"""What was measured: the record schema, the crash-safe journal and the store."""
