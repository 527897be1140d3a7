"""python -m twinrank.cli: the command line without the installed script."""

from twinrank.cli import main

main()
