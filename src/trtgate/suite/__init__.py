"""Models, settings and cases: what a user defines, and where it is imported from."""
