"""``python -m ratecraft.cli`` is the command, too."""

from ratecraft.cli import main

main()
