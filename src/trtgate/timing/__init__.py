"""Clocks, the loop that measures with them, and what the GPU was doing meanwhile. Knows nothing of pytest."""
