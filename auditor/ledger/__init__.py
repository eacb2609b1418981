"""What a run did, written down as it happens: the truth of a run's folder."""
