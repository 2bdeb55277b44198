"""Per-layer profiles: where the time of a compiled module goes, and what changed between two of them."""
