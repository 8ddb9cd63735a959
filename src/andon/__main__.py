"""``python -m andon``."""

from andon.cli.main import main

if __name__ == "__main__":
    main()
