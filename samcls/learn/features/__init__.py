"""From the store to standardised tensors and targets."""
