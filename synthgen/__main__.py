"""`python -m synthgen`: the same front door as the `synthgen` command."""

from synthgen.cli.main import main

if __name__ == "__main__":
    main()
