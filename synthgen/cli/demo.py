"""The command that runs the other commands on a few photographs: demo."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.terminal import print_lines
from synthgen.errors import EXTRAS, install_command


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Where to put photographs, shards and pictures")] = Path("demo"),
) -> None:
    """The whole way on a few real photographs: masks, captions, and a network that learns them. Downloads nothing."""
    from synthgen.cli import messages
    from synthgen.demo import photographs

    files = photographs.write_demo_files(folder)
    store, where = folder / "shards", ["--annotations", str(files.annotations), "--images", str(files.images)]
    run, photograph = folder / "run", files.images / "coffee.jpg"
    learned = ["--checkpoint", str(run / "step-00000400.pt")]
    own = ["--dataset", "coco-json", "--name", "demo", *where]
    annotate = (
        ["ingest", *own, "--store", str(store)],
        ["doctor", *own],
        # By name: weights in the folder of weights would change what the demo shows, and how long it takes.
        ["masks", *own, "--segmenter", "lite", "--store", str(store)],
        ["captions", *own, "--captioner", "attributes", "--store", str(store)],
        ["status", "--store", str(store)],
        ["show", "demo/train/captions", "--store", str(store), "--out", str(folder / "pictures")],
    )
    learn = (
        ["check", str(files.preview_manifest)],
        ["show", str(files.preview_manifest), "--n", "12", "--out", str(folder / "training")],
        ["train", "--manifest", str(files.train_manifest), "--out", str(run)],
        ["evaluate", *learned, "--manifest", str(files.eval_manifest)],
        # The spoon's mask is below the threshold of learn.yaml, so only its box was learned.
        ["predict", str(photograph), "cup", "saucer", *learned, "--out", str(folder / "predictions")],
    )
    synthgen = context.find_root().command  # `main.py` imports this module
    missing = [package for package, extra in EXTRAS.items() if extra == "train" and find_spec(package) is None]
    for command in annotate if missing else (*annotate, *learn):
        print_lines("", f"$ synthgen {' '.join(command)}")
        code = synthgen.main(command, standalone_mode=False)
        if code and (code != 1 or command[0] != "doctor"):
            raise typer.Exit(code)
    if missing:
        print_lines("", f"The second half of the demo trains a network. It needs {', '.join(missing)}; install them:")
        print_lines(f"  {install_command('train')}")
    print_lines("", *messages.format_next_steps(folder, trained=not missing))
