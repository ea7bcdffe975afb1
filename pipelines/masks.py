"""`synthgen masks --engine ray`, from a checkout: python -m pipelines.masks ..."""

from __future__ import annotations

from synthgen.cli.main import main

if __name__ == "__main__":
    main(command="masks", engine="ray")
