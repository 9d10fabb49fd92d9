"""The order in which pseudo-labels are looked at."""
