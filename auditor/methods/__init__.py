"""The mathematics of the lenses: pure functions over tensors and a pair."""
