"""Stage one: images through the frozen encoder into the feature store."""
