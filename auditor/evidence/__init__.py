"""The readings of one pair: which lenses are run, in what order, and how each is kept."""
