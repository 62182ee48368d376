"""Stacks of tilt images, and what says at which angles they were taken: MRC, angle files, .mdoc."""
