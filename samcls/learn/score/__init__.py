"""What is measured of predictions, and how sure it is."""
