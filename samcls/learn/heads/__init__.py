"""Heads: cached features of several levels in, class logits out; `registry` maps names to classes."""
