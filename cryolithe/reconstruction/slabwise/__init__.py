"""Methods as maps from slabs of detector rows to slabs of the volume, and how slabs are made and stored."""
