"""`python -m atypia`: the command line."""

from atypia.cli.main import main

if __name__ == "__main__":
    main()
