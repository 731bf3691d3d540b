"""Recordings and tables of one's own."""
