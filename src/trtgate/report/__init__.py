"""What people read: sentences, the terminal, progress."""
