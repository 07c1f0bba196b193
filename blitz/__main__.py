"""`python -m blitz` is `blitz`."""

from blitz.cli.main import main

if __name__ == "__main__":
    main()
