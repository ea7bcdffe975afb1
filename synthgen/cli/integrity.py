"""The commands that examine, renew and delete shards: verify, migrate, rm."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from synthgen.cli import options as opt
from synthgen.cli.options import DEFAULT_STORE
from synthgen.cli.terminal import open_progress, print_lines
from synthgen.errors import SynthgenError

_Layer = Annotated[str, typer.Argument(metavar="LAYER", help="DATASET/SPLIT/LAYER, as `synthgen status` lists")]


def verify(layer: _Layer, store: opt.Store = DEFAULT_STORE) -> None:
    """Read every page of a layer and compare its shards with what was written. Repairs nothing, writes nothing.

    A line for each shard: ok; unverified (of an older release, it does not say what it is); stale (the layer that it
    was made from has changed); damaged; foreign (another shard, or no shard, has its name); missing. Exit code 1 unless
    all are ok or unverified.

    \b
    Example:
      synthgen verify objects365/train/masks
    """
    from synthgen.review import verify as examination
    from synthgen.storage.shard_store import ShardStore

    house, parts = ShardStore(store), layer.strip("/").split("/")
    total = len(house.scan_layer(*parts).shards) if len(parts) == 3 else 0
    with open_progress("verifying", total, "shards") as done:
        verdicts = list(examination.verify_layer(house, layer, done.advance))
    print_lines(*examination.format_verdicts("/".join(parts), verdicts))
    raise typer.Exit(0 if all(verdict.state in examination.SOUND_STATES for verdict in verdicts) else 1)


def migrate(
    layer: _Layer,
    store: opt.Store = DEFAULT_STORE,
    rename: Annotated[
        bool,
        typer.Option("--rename", help="The folder was renamed on purpose: write its new name into the shards"),
    ] = False,
) -> None:
    """Add identity and digests to the shards of older releases, so that `verify` can tell them from damaged ones.

    Rows, recipes and fingerprints stay. Each shard is replaced at once, or not at all; the same command continues.
    Stop the jobs that write the layer first. Exit code 1 if a shard is damaged or belongs elsewhere; it is left as it
    is.

    \b
    Examples:
      synthgen migrate objects365/train/masks
      synthgen migrate objects365/train/masks_2024 --rename
    """
    from synthgen.review.show import resolve_shards
    from synthgen.storage.migrate import format_migration, migrate_shards
    from synthgen.storage.shard_store import ShardStore

    house = ShardStore(store)
    shards = resolve_shards(layer, store)
    with open_progress("migrating", len(shards), "shards") as done:
        found = migrate_shards(house, shards, is_renamed=rename, on_shard=done.advance)
    print_lines(*format_migration("/".join(layer.strip("/").split("/")), found))
    raise typer.Exit(1 if found.refused else 0)


def rm(
    layer: _Layer,
    store: opt.Store = DEFAULT_STORE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also if other layers were made from this one")] = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Delete a layer: its shards, its temporary files and its logs.

    Nothing else is deleted: files of others and links stay, and are named. A layer that a job uses stays, and without
    --force one that others were made from, because these cannot be renewed without it. Kill it, and the same command
    continues.

    \b
    Example:
      synthgen rm boxes/train/masks
    """
    from synthgen.storage.layer_removal import format_removal, plan_removal, remove_layer
    from synthgen.storage.shard_store import ShardStore

    house = ShardStore(store)
    plan = plan_removal(house, layer)
    if dry_run:
        print_lines(*format_removal(plan, is_done=False))
        return
    if not yes:
        if not sys.stdin.isatty():
            raise SynthgenError(f"nobody can be asked whether to delete {plan.layer}; add --yes")
        print_lines(*format_removal(plan, is_done=False))
        if not typer.confirm("Delete it?"):
            raise typer.Exit(1)
    print_lines(*format_removal(remove_layer(house, layer, force=force), is_done=True))
