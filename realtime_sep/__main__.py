"""`python -m realtime_sep`."""

from realtime_sep.cli import main

if __name__ == "__main__":
    main()
