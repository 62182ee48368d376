"""The finished volume: its type and order, record, preview and maps."""
