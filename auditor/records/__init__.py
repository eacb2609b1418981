"""Every record that passes between the stages, or lies on disk."""
