"""What several benchmarks share, and what one of them would be too long with; no file here measures by itself."""
