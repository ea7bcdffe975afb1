"""The command line: registers the commands, and turns errors into messages and exit codes.

Commands import the packages behind them when they run, so that `--help` is quick.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from synthgen import __version__
from synthgen.cli import manifests
from synthgen.cli.demo import demo
from synthgen.cli.exits import end_despite_running_batches
from synthgen.cli.ingest import doctor, ingest
from synthgen.cli.jobs import captions, masks
from synthgen.cli.options import CONTEXT_SETTINGS
from synthgen.cli.plugin_flags import GroupedCommand
from synthgen.cli.review import show, status
from synthgen.cli.training import ablate, evaluate, predict, train
from synthgen.errors import (
    EXTRAS,
    MultipleErrors,
    SynthgenError,
    describe_os_error,
    escape_control_chars,
    missing_extra_error,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=CONTEXT_SETTINGS,
    help="Turn box-annotated image datasets into segmentation datasets with captions. Begin with `synthgen demo`.",
)


@app.callback(invoke_without_command=True)
def version_only(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(f"synthgen {__version__}")
        raise typer.Exit


#: In the order of `synthgen --help`.
_COMMANDS = (
    ingest,
    doctor,
    masks,
    captions,
    train,
    evaluate,
    predict,
    ablate,
    status,
    show,
    manifests.check,
    manifests.exclude,
    demo,
)
_WITH_ENGINE = (masks, captions, train)

for command in _COMMANDS:
    app.command(cls=GroupedCommand if command in _WITH_ENGINE else None)(command)
app.add_typer(manifests.app, name="manifests")


def _error_message(why: Exception, command: str) -> str | None:
    """What to print instead of a traceback; None where the traceback is wanted."""
    if isinstance(why, ModuleNotFoundError):
        package = (why.name or "").partition(".")[0]
        return str(missing_extra_error(package, f"`synthgen {command}`")) if package in EXTRAS else None
    return describe_os_error(why) if isinstance(why, OSError) else str(why)


@end_despite_running_batches
def main(*, command: str | None = None, engine: str = "local") -> None:
    """Run the command line.

    Args:
        command: run only this command, as the entry points in `pipelines/` do; None = the first argument names it.
        engine: the default of its option `--engine`.
    """
    # Threads of one step that wait for each other busily take the cores that others need to come on: where anything
    # else runs, a reader process will do, a step takes many times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        # File and category names come from anywhere; a terminal of another encoding must not end a job.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        if command is None:
            app()
        else:  # alone, so that its help and its sentences speak of what was typed
            own = typer.main.get_group(app).commands[command]
            own.main(prog_name=f"python -m pipelines.{command}", default_map={"engine": engine}, **CONTEXT_SETTINGS)
    except (SynthgenError, OSError, ModuleNotFoundError) as why:
        sentence = _error_message(why, command or " ".join(sys.argv[1:2]))
        if sentence is None:
            raise
        lines = why.lines if isinstance(why, MultipleErrors) else [escape_control_chars(sentence)]
        typer.echo("synthgen: " + "\n".join(lines), err=True)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:  # Ctrl-C; typer makes an exit of it where a command is at work
        if isinstance(end, SystemExit) and end.code != 130:
            raise
        typer.echo("stopped; what is committed stays, and the same command continues", err=True)
        sys.exit(130)
