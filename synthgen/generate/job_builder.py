"""Creates the job of a stage over a dataset, with all options of the plugin resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.generate.dataset_spec import DatasetSpec
from synthgen.generate.job import Job
from synthgen.storage.shard_store import check_name

#: Maximum of --timeout, in seconds. Locks accept no wait that is much longer.
MAX_TIMEOUT = 1_000_000


def create_job(
    spec: DatasetSpec,
    store: Path,
    *,
    stage: str,
    plugin: str,
    options: dict[str, Any],
    input_layer: str,
    layer: str,
    max_error_share: float,
    retry_failed: bool,
    update: bool = False,
    timeout: float | None = None,
    stage_options: dict[str, Any] | None = None,
) -> Job:
    """The job of a stage over a dataset; nothing is read or written but what the options need.

    Args:
        spec: the dataset.
        store: root folder of the shards.
        stage: plugin of `generate.stages`, such as "masks".
        plugin: segmenter or captioner of the stage.
        options: options of `plugin`, as text or in their types.
        input_layer: layer to read.
        layer: layer to write.
        max_error_share: share of failed images in [0, 1] above which a shard is not committed.
        retry_failed: do images again that failed before.
        update: see `Job`.
        timeout: seconds that a batch may take; None = any time.
        stage_options: options of the stage itself; None = the stage has none.

    Raises:
        SynthgenError: no such plugin, option or image folder; a layer that cannot be written; an invalid timeout.
    """
    if timeout is not None and not 0 < timeout <= MAX_TIMEOUT:
        raise SynthgenError(f"--timeout {timeout:g} should be above 0 and at most {MAX_TIMEOUT:,} seconds")
    if check_name(layer) == check_name(input_layer) or layer in spec.reader.LAYERS:
        wrong = "is what the job reads" if layer == input_layer else f"is made from {spec.name}'s own files"
        another = stage if stage not in (input_layer, layer) else f"{stage}-2"
        raise SynthgenError(f"the layer '{layer}' {wrong}; choose another --layer to write, such as {another}")
    work: Any = plugins.load_plugin("generate.stages", stage)
    resolved = plugins.resolve_options(work.PLUGIN_PACKAGE, plugin, options)
    return Job(
        stage=stage,
        dataset=spec.name,
        split=spec.split,
        input_layer=input_layer,
        layer=layer,
        plugin=plugins.normalize_name(plugin),
        options=resolved,
        stage_options=work.resolve_options(resolved, **stage_options) if stage_options is not None else {},
        store=store,
        image_folder=spec.resolve_image_folder(),
        max_error_share=max_error_share,
        retry_failed=retry_failed,
        update=update,
        timeout=timeout,
        runtime_options=plugins.runtime_options(work.PLUGIN_PACKAGE, plugin),
    )
