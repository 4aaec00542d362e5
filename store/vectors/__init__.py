"""Vectors by space and content key, on Zarr v3: chunks committed whole, locks, damage, any fsspec URL."""
