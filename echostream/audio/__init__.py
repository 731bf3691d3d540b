"""Recordings, pipes and devices as samples, and samples as files."""
