"""Run the ``ratecraft`` command with ``python -m ratecraft``."""

from ratecraft.cli import main

if __name__ == "__main__":
    main()
