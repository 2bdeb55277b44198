"""Operator coverage: counted, compared with what is stored, judged. Nothing here needs a GPU."""
