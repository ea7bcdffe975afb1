"""`synthgen captions --engine ray`, from a checkout: python -m pipelines.captions ..."""

from __future__ import annotations

from synthgen.cli.main import main

if __name__ == "__main__":
    main(command="captions", engine="ray")
