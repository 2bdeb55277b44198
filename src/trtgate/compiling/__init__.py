"""From a case to a compiled module whose output is right: built, or loaded from the artifact cache."""
