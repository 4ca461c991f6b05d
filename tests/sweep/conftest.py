"""The tiny stores with a signal to learn that stage two is tested on."""

from learn.conftest import make_store

__all__ = ["make_store"]
