"""A whole study in one file: steps that are commands, each done again only where something it rests on changed."""
