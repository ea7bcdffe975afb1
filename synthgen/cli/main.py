"""The command line: registers the commands, and turns errors into messages and exit codes.

Commands import the packages behind them when they run, so that `--help` is quick.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Annotated

import typer

from synthgen import __version__
from synthgen.cli import manifests
from synthgen.cli.demo import demo
from synthgen.cli.exits import end_despite_running_batches
from synthgen.cli.export import export
from synthgen.cli.imports import import_masks
from synthgen.cli.ingest import doctor, ingest
from synthgen.cli.integrity import migrate, rm, verify
from synthgen.cli.jobs import captions, masks
from synthgen.cli.options import CONTEXT_SETTINGS
from synthgen.cli.plugin_flags import GroupedCommand
from synthgen.cli.prediction import predict
from synthgen.cli.review import show, status
from synthgen.cli.signals import exit_code, stop_on_signals
from synthgen.cli.terminal import print_last_lines
from synthgen.cli.training import ablate, evaluate, train
from synthgen.errors import (
    EXTRAS,
    FailedRunError,
    MultipleErrors,
    SynthgenError,
    describe_exhaustion,
    describe_os_error,
    escape_control_chars,
    is_disk_full,
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
    import_masks,
    train,
    evaluate,
    predict,
    ablate,
    status,
    show,
    export,
    verify,
    migrate,
    rm,
    manifests.check,
    manifests.exclude,
    demo,
)
_WITH_SECTIONS = (masks, captions, train, predict, export)

for command in _COMMANDS:
    app.command(cls=GroupedCommand if command in _WITH_SECTIONS else None)(command)
app.add_typer(manifests.app, name="manifests")


def _describe_error(why: Exception, command: str) -> tuple[list[str], int] | None:
    """The lines to print instead of a traceback, and the exit code; None where the traceback is wanted."""
    if isinstance(why, SynthgenError):
        lines = why.lines if isinstance(why, MultipleErrors) else [escape_control_chars(str(why))]
        return lines, why.exit_code
    if (sentence := describe_exhaustion(why)) is not None:
        return [sentence], FailedRunError.exit_code
    if isinstance(why, ModuleNotFoundError):
        package = (why.name or "").partition(".")[0]
        missing = missing_extra_error(package, f"`synthgen {command}`") if package in EXTRAS else None
        return None if missing is None else ([str(missing)], missing.exit_code)
    if isinstance(why, OSError) and (sentence := describe_os_error(why)) is not None:
        return [escape_control_chars(sentence)], FailedRunError.exit_code if is_disk_full(why) else 2
    return None


def _describe_rest(command: str) -> str:
    """What stays of a command that a signal has ended, and how it goes on."""
    if command == "predict":
        return "predict keeps nothing of an unfinished run, and the same command begins anew"
    return "what is committed stays, and the same command continues"


@end_despite_running_batches
def main(*, command: str | None = None, engine: str = "local") -> None:
    """Run the command line.

    Args:
        command: run only this command, as the entry points in `pipelines/` do; None = the first argument names it.
        engine: the default of its option `--engine`.

    Raises:
        SystemExit: with the exit code.
        Exception: an error that no message describes keeps its traceback.
    """
    # Threads of one step that wait for each other busily take the cores that others need to come on: where anything
    # else runs, a reader process will do, a step takes many times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        # File and category names come from anywhere; a terminal of another encoding must not end a job.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with stop_on_signals() as request:
        try:
            if command is None:
                app()
            else:  # alone, so that its help and its sentences speak of what was typed
                own = typer.main.get_group(app).commands[command]
                own.main(prog_name=f"python -m pipelines.{command}", default_map={"engine": engine}, **CONTEXT_SETTINGS)
        except Exception as why:
            if request.received is None:
                described = _describe_error(why, command or " ".join(sys.argv[1:2]))
                if described is None:
                    raise
                print_last_lines("synthgen: " + "\n".join(described[0]))
                sys.exit(described[1])
        except KeyboardInterrupt:
            pass
        except SystemExit as end:  # typer makes an exit of Ctrl-C where a command is at work, and Ray one of any signal
            if not end.code or (request.received is None and end.code != exit_code(signal.SIGINT)):
                raise
        else:
            return
        received = request.received or signal.SIGINT
        how = "" if received == signal.SIGINT else f" ({received.name})"
        print_last_lines(f"stopped{how}; {_describe_rest(command or ' '.join(sys.argv[1:2]))}")
        sys.exit(exit_code(received))
