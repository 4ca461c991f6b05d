"""Many runs of stage two: a space of configs, a search through it, and what the runs found."""
