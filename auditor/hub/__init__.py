"""Runs and reports on the hub: as datasets, and as a block of a model's card."""
