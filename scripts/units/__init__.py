"""Discrete speech units: features, clusters, and how good they are."""
