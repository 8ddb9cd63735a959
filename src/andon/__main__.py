"""``python -m andon``."""

from andon.cli.main import main

main()
