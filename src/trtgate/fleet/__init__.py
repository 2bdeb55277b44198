"""Runs of many machines: shards of a run, what they leave, and the one judge of all of it."""
