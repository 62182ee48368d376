"""What is to be reconstructed: files and settings, resolved once, and what is known beside the images."""
