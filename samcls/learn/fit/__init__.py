"""Heads trained: schedule, losses, the loop, networks, prediction."""
