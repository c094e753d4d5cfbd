"""Purchasing: what hardware costs to own or rent, what it delivers, and how sure that is."""
