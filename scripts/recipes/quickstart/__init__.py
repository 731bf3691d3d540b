"""A tiny corpus, for a first training in minutes."""
