"""One folder a run: training, seeds and folds, baselines."""
