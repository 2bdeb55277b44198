"""The commands of `trtgate`: for each a module that reads its options, and modules that do the work."""
