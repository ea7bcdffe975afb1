"""Fuzz targets: images, weights, checkpoints, tokenizers, shards, manifests, and the JSON that runs leave behind."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save as save_safetensors
from torch import nn

from fakes import layer_kinds, text_encoder_folders, tiny_florence2, tiny_ofa
from fakes.fuzz_runner import FuzzTarget, WrongAnswerError
from synthgen.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from synthgen.dataloading.leakage.image_keys import read_exclude_list
from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.errors import SynthgenError
from synthgen.evaluation.results import load_results, save_results
from synthgen.generate.captioners._florence2_folder import load_florence2, resolve_checkpoint_folder
from synthgen.images.decode import ImageError, load_label_map, load_rgb, read_image_header
from synthgen.models.box_segmenter import weights as box_segmenter
from synthgen.models.checkpoint_reader import NonTensorContentError, read_weights
from synthgen.models.mqformer.text_encoder_files import read_text_encoder
from synthgen.models.ofa.checkpoint_folder import read_checkpoint
from synthgen.models.ofa.tokenizer import load_tokenizer
from synthgen.models.ofa.weights import infer_config
from synthgen.review.status import format_status
from synthgen.storage.image_folder import find_image_folder
from synthgen.storage.shard_store import ShardStore
from synthgen.training import resume, run_dir
from synthgen.training.logger import MetricsLogger

ROOT = Path(__file__).parents[2]

_REFUSALS = (ValueError, NonTensorContentError)


def file_targets() -> list[FuzzTarget]:
    """One target for each kind of file."""
    images = [
        FuzzTarget(f"image_{kind}", make, _read_image, refusals=(ImageError,)) for kind, make in _IMAGE_SEEDS.items()
    ]
    return [
        *images,
        FuzzTarget("weights_bin", _weights_seeds("weights.bin"), _read_weights, refusals=_REFUSALS),
        FuzzTarget("weights_pt", _weights_seeds("weights.pt"), _read_weights, refusals=_REFUSALS),
        FuzzTarget("weights_safetensors", _safetensors_seeds, _read_weights, refusals=_REFUSALS),
        FuzzTarget("lite_weights", _lite_seeds, _read_lite_weights, refusals=_REFUSALS),
        FuzzTarget("checkpoint", _checkpoint_seeds, _read_checkpoint),
        FuzzTarget("ofa_folder", _ofa_seeds, _read_ofa, refusals=_REFUSALS),
        FuzzTarget("ofa_tokenizer", _ofa_tokenizer_seeds, _read_ofa_tokenizer, refusals=(ValueError,)),
        FuzzTarget("text_encoder", _text_encoder_seeds, _read_text_encoder, refusals=_REFUSALS),
        FuzzTarget("florence2", _florence2_seeds, _read_florence2),
        FuzzTarget("shards", _shard_seeds, _read_shards, protected=True),
        FuzzTarget("manifest", _manifest_seeds, _read_manifest),
        FuzzTarget("exclude_list", _exclude_seeds, _read_exclude_list),
        FuzzTarget("run_json", _run_json_seeds, _read_run_json),
        FuzzTarget("run_folder", _run_folder_seeds, _read_run_folder),
    ]


# --- images ----------------------------------------------------------------------------------------------------------


def _read_image(folder: Path) -> tuple[Any, ...]:
    """Labels, header and pixels of an image, one after the other, as each may be large."""
    path = next(iter(sorted(folder.iterdir())), folder / "image.png")
    try:
        labels = _digest(load_label_map(path))
    except ImageError:
        labels = None
    try:
        header = read_image_header(path)
    except ImageError:
        load_rgb(path)  # refuses it as well
        raise WrongAnswerError("pixels of an image without a header") from None
    rgb = load_rgb(path)
    if header[:2] != rgb.shape[:2]:
        raise WrongAnswerError(f"header {header}, pixels {rgb.shape}")
    if rgb.size <= 2**22:
        _check_pixels(path, rgb)
    return header, _digest(rgb), labels


def _check_pixels(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Pillow's own pixels, where no conversion and no orientation comes between."""
    with Image.open(path) as image:
        plain = image.mode == "RGB" and not image.info.get("exif") and image.format in ("PNG", "BMP", "PPM", "WEBP")
        if plain and not np.array_equal(rgb, np.asarray(image)):
            raise WrongAnswerError("other pixels than Pillow's")


def _digest(values: NDArray[Any]) -> str:
    return f"{values.dtype} {values.shape} {sha256(values).hexdigest()}"


def _pixels(mode: str) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (7, 9, 4), np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., :2].copy().view(np.uint16)[..., 0])
    image = Image.fromarray(values, "RGBA")
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def _image_seeds(suffix: str, *variants: tuple[str, dict[str, Any]]) -> Callable[[Path], list[dict[str, bytes]]]:
    def make(folder: Path) -> list[dict[str, bytes]]:
        seeds = []
        for mode, options in variants:
            own = options.get("suffix", suffix)
            path = folder / f"image.{own}"
            _pixels(mode).save(path, **{key: value for key, value in options.items() if key != "suffix"})
            seeds.append({path.name: path.read_bytes()})
        return seeds

    return make


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


_MORE: dict[str, Any] = {"save_all": True, "append_images": [Image.new("RGB", (9, 7))]}
_IMAGE_SEEDS = {
    "png": _image_seeds(
        "png", *((mode, {}) for mode in ("RGB", "RGBA", "L", "P", "LA", "1", "I;16")), ("RGB", {"exif": _exif(6)})
    ),
    "jpeg": _image_seeds(
        "jpg", ("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"exif": _exif(8)})
    ),
    "tiff": _image_seeds(
        "tif",
        *(("RGB", {"compression": name}) for name in (None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
        *((mode, {}) for mode in ("L", "P", "I;16", "F", "I", "1", "CMYK")),
        ("RGB", _MORE),
    ),
    "webp": _image_seeds(
        "webp", ("RGB", {}), ("RGBA", {"lossless": True}), ("RGB", {"exif": _exif(3)}), ("RGB", _MORE)
    ),
    "bmp": _image_seeds("bmp", *((mode, {}) for mode in ("RGB", "L", "P", "1", "RGBA"))),
    "others": _image_seeds(
        "gif",
        ("P", {}),
        ("RGB", {"suffix": "ppm"}),
        ("L", {"suffix": "pgm"}),
        ("RGB", {"suffix": "jp2"}),
        ("RGB", {"suffix": "avif"}),
    ),
}


# --- weights ---------------------------------------------------------------------------------------------------------


def _tensors() -> dict[str, torch.Tensor]:
    values = torch.arange(24, dtype=torch.float32)
    return {
        "a.weight": values.view(4, 6),
        "a.bias": values[:4].clone(),
        "b.half": values[:6].half().view(2, 3),
        "b.count": torch.tensor(7),
        "c.brain": values[:2].bfloat16(),
        "c.turned": values.view(4, 6).t(),
    }


def _weights_seeds(name: str) -> Callable[[Path], list[dict[str, bytes]]]:
    def make(folder: Path) -> list[dict[str, bytes]]:
        seeds = []
        tied = {**_tensors(), "tied": _tensors()["a.weight"]}
        parameters = nn.ParameterDict({"w": nn.Parameter(torch.ones(3))}).state_dict()
        for content in (_tensors(), {"model": _tensors(), "step": 3, "lr": [0.1]}, {"state_dict": tied}, parameters):
            torch.save(content, folder / name)
            seeds.append({name: (folder / name).read_bytes()})
        return seeds

    return make


def _safetensors_seeds(folder: Path) -> list[dict[str, bytes]]:
    own = {name: tensor.contiguous() for name, tensor in _tensors().items()}
    odd = b'{"x":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}'
    return [
        {"weights.safetensors": save_safetensors(own, {"format": "pt"})},
        {"weights.safetensors": struct.pack("<Q", len(odd)) + odd + bytes(6)},
    ]


def _lite_seeds(folder: Path) -> list[dict[str, bytes]]:
    """Files with the metadata of a box segmenter. Its network would make them too large to try thousands of them."""
    own = {name: tensor.contiguous() for name, tensor in _tensors().items()}
    structures = (
        {"backbone": "tf_efficientnet_lite2", "crop_size": 192, "hidden_dim": 64, "margin": 0.2},
        {"backbone": "tf_efficientnet_lite0", "crop_size": 64, "hidden_dim": 16, "margin": 1, "later": [None]},
    )
    return [
        {"lite.safetensors": save_safetensors(own, {box_segmenter.METADATA_KEY: json.dumps(content)})}
        for content in structures
    ]


def _read_lite_weights(folder: Path) -> tuple[Any, ...]:
    path = next(iter(sorted(folder.iterdir())), folder / "lite.safetensors")
    config, tensors = box_segmenter._read_safetensors(path)
    return config, _describe(tensors, path)


def _read_weights(folder: Path) -> list[tuple[str, str]]:
    path = next(iter(sorted(folder.iterdir())), folder / "weights.bin")
    return _describe(read_weights(path), path)


def _describe(tensors: Any, path: Path) -> list[tuple[str, str]]:
    """Names and values of tensors: every value is read, as a mapped file may be shorter than they claim."""
    total = sum(tensor.nbytes for tensor in tensors.values())
    if total > 8 * path.stat().st_size:
        raise WrongAnswerError(f"{total:,} bytes of tensors from a file of {path.stat().st_size:,}")
    return [(name, f"{tensor.dtype} {list(tensor.shape)} {tensor.tolist()}") for name, tensor in tensors.items()]


class _TinyLearner:
    """What a training is resumed for: one layer."""

    kind = "mqformer"
    has_learned_masks = False

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(3, 2)


def _optimizer(learner: _TinyLearner) -> torch.optim.AdamW:
    return torch.optim.AdamW(learner.module.parameters(), lr=0.1)


def _checkpoint_seeds(folder: Path) -> list[dict[str, bytes]]:
    learner = _TinyLearner()
    optimizer = _optimizer(learner)
    learner.module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    weights, state = resume.collect_training_state(learner, optimizer, None, {"seen": {}, "step": 3}, 0.5, 0)  # type: ignore[arg-type]
    path = folder / "step-00000003.pt"
    save_checkpoint(path, Checkpoint("mqformer", 3, {"hidden_dim": 8}, ("dog", "sky"), weights, (64, 96), state))
    return [{path.name: path.read_bytes()}]


def _read_checkpoint(folder: Path) -> tuple[Any, ...]:
    """The whole content, and a training that goes on from it."""
    path = folder / "step-00000003.pt"
    if not path.exists():  # else the reader waits for it
        path.touch()
    found = load_checkpoint(path)
    learner = _TinyLearner()
    optimizer = _optimizer(learner)
    state = resume.restore_training_state(path, learner, optimizer, None)  # type: ignore[arg-type]
    learner.module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return (
        *(found.kind, found.step, str(found.model_config), found.category_names, found.eval_size),
        *(_describe(found.weights, path), str(state), str(learner.module.state_dict())),
    )


def _ofa_seeds(folder: Path) -> list[dict[str, bytes]]:
    """Only the tensors by which an OFA is recognized, narrow: a whole one takes a hundred times as long."""
    shapes = {
        "encoder.embed_tokens.weight": (tiny_ofa.SPEAKING_NUMBERS.vocab_size, 1),
        "encoder.layers.0.self_attn.c_attn": (1,),
        "encoder.layers.0.fc1.weight": (4, 1),
        "decoder.layers.0.fc1.weight": (4, 1),
        "encoder.embed_image_positions.weight": (50, 1),
        "encoder.embed_positions.weight": (66, 1),
        "encoder.token_rel_pos_table_list.0.weight": (15, 1),
        **{f"encoder.embed_images.layer{stage}.0.conv1.weight": (1, 1, 1, 1) for stage in (1, 2, 3)},
    }
    weights = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    return [_folder(tiny_ofa.checkpoint(folder / "ofa", weights))]


def _read_ofa(folder: Path) -> tuple[int, int]:
    weights, tokenizer = read_checkpoint(folder / "pytorch_model.bin", folder)
    infer_config(weights)
    return sum(int(tensor.numel()) for tensor in weights.values()), len(tokenizer.encode(" a cat"))


def _ofa_tokenizer_seeds(folder: Path) -> list[dict[str, bytes]]:
    path = tiny_ofa.write_vocabulary(folder / "words")
    return [{file.name: file.read_bytes() for file in sorted(path.iterdir())}]


def _read_ofa_tokenizer(folder: Path) -> tuple[Any, ...]:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(" a cat, 3 cats; été 🦓 </s> \ud7ff")
    if not all(0 <= number < tokenizer.text_vocab_size for number in ids):
        raise WrongAnswerError(f"ids {ids} of a vocabulary of {tokenizer.text_vocab_size}")
    return tuple(ids), tokenizer.decode(ids), tokenizer.decode(range(tokenizer.vocab_size + 3)), tokenizer.vocab_size


def _folder(path: Path) -> dict[str, bytes]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def _text_encoder_seeds(folder: Path) -> list[dict[str, bytes]]:
    whole = _folder(text_encoder_folders.write_sentence_encoder(folder / "mini", num_hidden_layers=1))
    parts = [{"type": f"sentence_transformers.models.{name}", "path": path} for name, path in
             (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))]  # fmt: skip
    whole["modules.json"] = json.dumps(parts).encode()
    whole["1_Pooling/config.json"] = json.dumps(
        {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    ).encode()
    whole["sentence_bert_config.json"] = b'{"max_seq_length": 8, "do_lower_case": false}'
    clip = _folder(text_encoder_folders.write_clip(folder / "clip", num_hidden_layers=1))
    pickled = _folder(text_encoder_folders.write_sentence_encoder(folder / "bin", "distilbert", "bin", n_layers=1))
    return [whole, clip, pickled]


def _read_text_encoder(folder: Path) -> tuple[Any, ...]:
    encoder, words = read_text_encoder(folder)
    ids = words("a red car, 7 [SEP] \ud800 zebras")
    if not 0 < len(ids) <= words.context_length or not all(0 <= number < words.vocab_size for number in ids):
        raise WrongAnswerError(f"ids {ids[:20]} of a vocabulary of {words.vocab_size}")
    return ids, encoder.dim


def _florence2_seeds(folder: Path) -> list[dict[str, bytes]]:
    return [_folder(tiny_florence2.write(folder / "florence"))]


def _read_florence2(folder: Path) -> str:
    return load_florence2(resolve_checkpoint_folder(str(folder)), validate_only=True).name


# --- shards, manifests, JSON -----------------------------------------------------------------------------------------


def _shard_seeds(folder: Path) -> list[dict[str, bytes]]:
    root = layer_kinds.write_store(folder)
    kinds = ("annotations", "human", "masks", "captions", "scored")
    return [
        {f"coco/train2017/{kind}/{path.name}": path.read_bytes()}
        for kind in kinds
        for path in sorted((root / "coco/train2017" / kind).glob("*.parquet"))[:1]
    ]


def _read_shards(folder: Path) -> list[tuple[str, ...]]:
    """Footer, statistics, a column and all rows of each shard, by each way in which they are read."""
    store = ShardStore(folder)
    found = []
    if not any(path.is_file() for path in folder.rglob("*")):
        raise SynthgenError("no shard")
    for layer in store.list_layers():
        for shard in store.list_shards(*layer):
            footer, sizes = store.read_row_group_sizes(shard)
            statistics = store.read_column_stats(shard, ["image_id", "annotations.list.element.id"])
            keys = [key for batch in store.read_columns(shard, ["image_key"]) for key in batch.column(0).to_pylist()]
            samples = list(store.read_samples(shard))
            if len(samples) != sum(sizes) or [sample.image_key for sample in samples] != keys:
                raise WrongAnswerError("two ways of reading give other rows")
            if store.read_footer(shard) != footer:
                raise WrongAnswerError("two ways of reading give another footer")
            found.append((str(shard), json.dumps(footer), str(statistics), repr(samples)))
    return found


def _manifest_seeds(folder: Path) -> list[dict[str, bytes]]:
    return [{"m.yaml": path.read_bytes()} for path in sorted((ROOT / "manifests").rglob("*.yaml"))]


def _read_manifest(folder: Path) -> str:
    return load_manifest(folder / "m.yaml", store=Path("shards")).model_dump_json()


def _exclude_seeds(folder: Path) -> list[dict[str, bytes]]:
    return [{"keys.txt": b"# keys\ncoco/000000391895\nvisual_genome/7\n\nforeground/DUTS-TR/a b.jpg\n"}]


def _read_exclude_list(folder: Path) -> list[str]:
    return sorted(read_exclude_list(folder / "keys.txt"))


def _run_json_seeds(folder: Path) -> list[dict[str, bytes]]:
    save_results(folder / "results.json", [], step=3)
    status = {"shards": 3, "committed": 1, "failed": 0, "updated": 1e18, "eta_seconds": 60.0, "images_per_second": 2.5}
    failures = [{"shard": f"d/s/masks/0000{i}-of-00003", "error": "no memory", "time": 1.5} for i in range(2)]
    log = "d/s/masks/_log"
    return [
        {
            "results.json": (folder / "results.json").read_bytes(),
            f"{log}/status.json": json.dumps(status).encode(),
            f"{log}/failures.jsonl": "".join(json.dumps(one) + "\n" for one in failures).encode(),
            f"{log}/images.json": json.dumps({"images_folder": "."}).encode(),
        }
    ]


def _read_run_json(folder: Path) -> tuple[Any, ...]:
    """Results of an evaluation, and the logs that `status` and `show` read."""
    lines = list(format_status(folder, failures=True))
    found = find_image_folder(ShardStore(folder), "d", "s", "masks")
    if (folder / "results.json").exists():
        return lines, str(found), load_results(folder / "results.json")
    return lines, str(found)


def _toy_manifest() -> Manifest:
    return load_manifest(ROOT / "manifests" / "toy.yaml", store=Path("shards"))


def _run_folder_seeds(folder: Path) -> list[dict[str, bytes]]:
    manifest = ROOT / "manifests" / "toy.yaml"
    run_dir.init_run_dir(folder, manifest, _toy_manifest(), kind="mqformer", world_size=1, device="cpu")
    lines = [{"step": step, "of": "train", "loss": 1.5, "note": "caf\u00e9"} for step in (1, 2, 3)]
    log = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return [{"run.json": (folder / "run.json").read_bytes(), "log.jsonl": log.encode()}]


def _read_run_folder(folder: Path) -> tuple[Any, ...]:
    """What a training reads of its folder before it goes on: who began it, and what it logged."""
    starts = run_dir.load_starts(folder, _toy_manifest(), kind="mqformer")
    with MetricsLogger(folder, 3):
        pass
    log = folder / "log.jsonl"
    return len(starts), log.read_bytes() if log.exists() else b""
