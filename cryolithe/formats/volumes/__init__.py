"""Volumes in every kind of file: MRC, TIFF, OME-Zarr; which are halves of one, and which are no volumes."""
