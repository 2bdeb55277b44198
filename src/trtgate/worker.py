"""`python -m trtgate.worker`: one launch, driven over a pipe by the process that started it."""

from .launches.worker_process import main

if __name__ == "__main__":
    main()
