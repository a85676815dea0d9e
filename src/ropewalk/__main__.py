"""`python -m ropewalk`: the command line where its script is not installed."""

from ropewalk.cli import main

if __name__ == "__main__":  # the studio's process of the model imports it too
    main()
