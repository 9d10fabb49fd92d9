"""``python -m SAMSemiSegLib`` is the ``samsemiseg`` command."""

from SAMSemiSegLib.command.app import main

if __name__ == "__main__":
    main()
