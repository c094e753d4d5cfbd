"""Decode attention over lists of tokens: the executor of token selectors."""
