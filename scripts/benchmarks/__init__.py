"""Timings of encoder, translation and server, side by side with other ways to do the same."""
