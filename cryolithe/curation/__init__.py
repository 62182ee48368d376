"""Curated real pairs: manifests of deposited tilt series with their targets, checks, and training files of them."""
