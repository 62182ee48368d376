"""Arithmetic of arrays that knows nothing of microscopy: transforms, folding, convolution."""
