"""The paper's measurements on organisms whose truth is known; each gives a `Study` that `plot` draws."""
