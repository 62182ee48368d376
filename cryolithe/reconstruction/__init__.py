"""From a tilt series to a volume, slab by slab."""
