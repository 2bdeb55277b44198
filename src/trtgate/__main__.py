"""`python -m trtgate`: the command line."""

from .cli import main

main()
