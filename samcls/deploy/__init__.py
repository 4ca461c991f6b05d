"""What comes out of runs: predicting with them, evaluating them elsewhere, handing them over."""
