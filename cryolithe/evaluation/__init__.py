"""How good is a tomogram? Scores against truth, between halves, and against images that were left out."""
