"""Workers, the processes that build and measure, and who drives them."""
