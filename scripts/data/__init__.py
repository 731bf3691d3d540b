"""Manifests, features, subwords and evaluation lists, which the recipes share."""
