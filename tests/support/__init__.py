"""What several tests build on; tests import from here, and never from each other."""
