"""What every other package may use: errors, files, the machine and its accelerator, metrics and limits."""
