"""A trained network goes on learning on a lab's own unlabelled tilt series."""
