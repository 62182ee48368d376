"""Many series: lists and folders."""
