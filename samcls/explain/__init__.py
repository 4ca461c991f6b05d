"""Where a run looked: evidence in logits, in the picture's own coordinates, with what says how far to believe it."""
