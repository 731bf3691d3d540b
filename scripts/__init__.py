"""Recipes and tools around the package: run them with ``python -m scripts.FOLDER.NAME``."""
