"""The project's own measurements, side by side and in one run."""
