"""What goes in: manifests, their sources, and the images they name."""
