"""Human telephone prompts as a test set."""
