"""Whether an organism is what its card says: asked of both models, family by family."""
