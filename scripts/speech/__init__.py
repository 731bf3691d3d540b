"""Synthetic voices, and recordings varied as rooms, telephones and neighbours do."""
