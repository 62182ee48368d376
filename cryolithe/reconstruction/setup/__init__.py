"""What a run settles before its first slab: memory, polarity, optics, noise, shares."""
