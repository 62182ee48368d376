"""What images and volumes show beside the specimen: filled borders, patterns, noise in common, another hand."""
