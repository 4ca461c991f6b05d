"""`python -m samcls` is `samcls`."""

from samcls.cli import main

if __name__ == "__main__":
    main()
