"""``python -m ratecraft``: the command."""

from ratecraft.cli import main

if __name__ == "__main__":
    main()
