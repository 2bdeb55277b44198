"""What is measured, profiled and counted, as data."""
