"""`python -m bench`."""

from bench.app.cli import main

if __name__ == "__main__":
    main()
