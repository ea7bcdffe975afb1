"""Published weights of SAM and those of this machine, without heavy imports: `auto` asks before it loads a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthgen.weights import LocalWeights, PublishedFile, is_local, weights_folder

_BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything/"

#: https://github.com/facebookresearch/segment-anything#model-checkpoints
PUBLISHED_WEIGHTS = {
    "vit_b": PublishedFile(
        _BASE_URL + "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": PublishedFile(
        _BASE_URL + "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": PublishedFile(
        _BASE_URL + "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}

#: See the plugin folder. Before HQ-SAM: SAM scores the mask that it returns (`predicted_iou`), by which people filter.
#: HQ-SAM only has the score of another mask.
RANK = {"cpu": 20, "cuda": 40}


def list_local_weights() -> list[LocalWeights]:
    """See the plugin folder: the largest variant first."""
    return list_published_files(PUBLISHED_WEIGHTS)


def how_to_get(options: Mapping[str, Any]) -> str:
    """See the plugin folder."""
    return describe_download("sam", "SAM's", PUBLISHED_WEIGHTS, options)


def list_published_files(published: Mapping[str, PublishedFile]) -> list[LocalWeights]:
    """The published files in the folder of weights, the largest first."""
    return [
        # No checkpoint: the job reads this file and no other, as if its variant was named.
        LocalWeights({"variant": variant, "checkpoint": ""}, f"{file.file_name} is in {weights_folder()}")
        for variant, file in sorted(published.items(), key=lambda item: -item[1].size)
        if is_local(file)
    ]


def describe_download(
    plugin: str, owner: str, published: Mapping[str, PublishedFile], options: Mapping[str, Any]
) -> str:
    """A clause that says which command downloads the weights that `options` need.

    Args:
        plugin: "sam" or "hq_sam".
        owner: whose weights they are, in the genitive.
        published: variant -> its published weights.
        options: of a recipe; without `variant`, any of the published files will do.
    """
    variant = options.get("variant")
    if variant is None:
        sizes = {name: f"{published[name].size / 1e9:.1f} GB" for name in ("vit_h", "vit_b")}
        downloads = f"`--segmenter {plugin}` downloads {owner} weights"
        return f"{downloads} ({sizes['vit_h']}; with `--variant vit_b` {sizes['vit_b']})"
    file = published.get(str(variant))
    if file is None or options.get("weights") != file.sha256:
        return f"name their file with `--segmenter {plugin} --checkpoint FILE`"
    return f"`--segmenter {plugin} --variant {variant}` downloads them ({file.size / 1e9:.1f} GB)"
