"""Serving: requests that arrive, wait, are batched and answered, on top of the times of single steps."""
