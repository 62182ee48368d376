"""Many tilt series: found, planned, reconstructed one by one or on a cluster, and summed up."""
