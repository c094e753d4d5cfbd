"""The pass that quantises Q, K or V for ``quantised_attention``: operator and implementations."""
