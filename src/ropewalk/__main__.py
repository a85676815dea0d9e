"""`python -m ropewalk`: the command line where its script is not installed."""

from ropewalk.cli import main

main()
