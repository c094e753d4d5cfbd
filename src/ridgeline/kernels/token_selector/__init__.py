"""Selectors of tokens for decode, three operators, with the builders of their indices and their implementations."""
