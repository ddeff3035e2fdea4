"""Data sets: each gives a batch as a pure function of a seed and a step."""
