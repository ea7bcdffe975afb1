"""Loads a published Florence-2 folder, strictly: network and processor. Executes nothing in it.

Only the classes named here are used, never those named in a configuration. Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
)

from synthgen import compat
from synthgen.errors import SynthgenError, escape_control_chars
from synthgen.generate.captioners._florence2_words import (
    IMAGE_PROCESSOR_FILES,
    TOKENIZER_FILES,
    first_line,
    list_processor_files,
    load_bart_tokenizer,
    load_image_processor,
    read_json,
)
from synthgen.models.checkpoint_reader import read_pretrained
from synthgen.weights import cached_file_sha256

#: The command that downloads the published weights.
DOWNLOAD_COMMAND = "`hf download florence-community/Florence-2-base --local-dir weights/florence-2-base`"

#: With those of `list_processor_files` and *.safetensors, all files that affect captions; no other is opened.
CONFIG_FILE = "config.json"

#: The configuration keys that are used. The rest (labels, code, generation settings) is ignored.
_MODEL_KEYS = frozenset({"model_type", "image_token_id", "tie_word_embeddings", "is_encoder_decoder"})
_TEXT_KEYS = frozenset(
    "model_type vocab_size max_position_embeddings d_model encoder_layers encoder_ffn_dim encoder_attention_heads "
    "decoder_layers decoder_ffn_dim decoder_attention_heads activation_function scale_embedding init_std "
    "pad_token_id bos_token_id eos_token_id decoder_start_token_id is_encoder_decoder tie_word_embeddings".split()
)
_VISION_KEYS = frozenset(
    "model_type in_channels depths patch_size patch_stride patch_padding patch_prenorm embed_dim num_heads num_groups "
    "window_size mlp_ratio qkv_bias activation_function projection_dim max_temporal_embeddings "
    "max_position_embeddings".split()
)

#: Published sizes by channels and layers of the language model.
SIZE_NAMES = {(768, 6, 6): "base", (1024, 12, 12): "large"}

#: Names of one shared tensor; a file has one or more of them.
TIED_WEIGHTS = (
    "model.language_model.shared.weight",
    "lm_head.weight",
    "model.language_model.encoder.embed_tokens.weight",
    "model.language_model.decoder.embed_tokens.weight",
)

#: Tensors that follow from the configuration and may be missing.
_DERIVED_BUFFER = "model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"

#: Limits for untrusted folders: what we read, build and allocate.
_MAX_LAYERS = 256
_MAX_IMAGE_SIDE = 4096
_MAX_WINDOW_SIZE = 64


@dataclass(frozen=True, slots=True)
class LoadedFlorence2:
    """A loaded Florence-2.

    Attributes:
        network: on the CPU in float32.
        processor: tokenizer and image processor.
        name: "base", "large"; of any other size, its channels and layers: "64x2+2".
    """

    network: Florence2ForConditionalGeneration
    processor: Florence2Processor
    name: str


def resolve_checkpoint_folder(checkpoint: str) -> Path:
    """The folder of `--checkpoint`, after a check that it has all files.

    Args:
        checkpoint: the option of this name; "" = not given.

    Raises:
        SynthgenError: the folder or files are missing.
    """
    if not checkpoint:
        raise SynthgenError(f"the captioner florence2 needs --checkpoint FOLDER; {DOWNLOAD_COMMAND} fetches one")
    folder = Path(checkpoint).absolute()
    if not folder.is_dir():
        raise SynthgenError(
            f"no folder {folder}; --checkpoint should name that of a Florence-2, as {DOWNLOAD_COMMAND} fetches it"
        )
    there = {path.name for path in folder.iterdir() if path.is_file()}
    lacking = []
    if CONFIG_FILE not in there:
        lacking.append(CONFIG_FILE)
    if there.isdisjoint(IMAGE_PROCESSOR_FILES):
        lacking.append(IMAGE_PROCESSOR_FILES[0])
    if not any(there.issuperset(names) for names in TOKENIZER_FILES):
        lacking.append(TOKENIZER_FILES[0][0])
    if not any(name.endswith(".safetensors") for name in there):
        pickled = sorted(name for name in there if name.endswith((".bin", ".pt", ".pth")))
        if pickled and not lacking:
            raise SynthgenError(
                f"{folder} has its weights pickled only ({escape_control_chars(pickled[0])}), which may run code and "
                "is not read; "
                f"take one with model.safetensors, such as {DOWNLOAD_COMMAND} fetches"
            )
        lacking.append("model.safetensors")
    if lacking:
        raise SynthgenError(
            f"{folder} lacks {' and '.join(lacking)}; fetch the whole folder, as {DOWNLOAD_COMMAND} does"
        )
    return folder


def hash_checkpoint(folder: Path) -> str:
    """SHA-256 of the names and digests of all files that affect captions, independent of the folder's path."""
    paths = sorted(
        {folder / CONFIG_FILE, *(folder / name for name in list_processor_files(folder)), *folder.glob("*.safetensors")}
    )
    return sha256("\n".join(f"{path.name} {cached_file_sha256(path)}" for path in paths).encode()).hexdigest()


def load_florence2(folder: Path, *, validate_only: bool = False) -> LoadedFlorence2:
    """Load a folder from `resolve_checkpoint_folder`.

    Args:
        folder: untrusted; as `resolve_checkpoint_folder` returns it.
        validate_only: check the weights, but leave the network without them on the meta device.

    Raises:
        SynthgenError: it is not a Florence-2, or it is damaged.
    """
    try:
        network = _build_network(_read_config(folder))
        own = _match_weights(network, read_pretrained(folder))
        processor = _build_processor(folder, network)
        if not validate_only:
            _assign_weights(network, own)
    except ValueError as why:
        raise SynthgenError(
            f"{folder}: {why}; --checkpoint should name the folder of a Florence-2, as {DOWNLOAD_COMMAND} fetches it"
        ) from None
    text = network.config.text_config
    numbers = (text.d_model, text.encoder_layers, text.decoder_layers)
    return LoadedFlorence2(network, processor, SIZE_NAMES.get(numbers, "{}x{}+{}".format(*numbers)))


def _read_config(folder: Path) -> Florence2Config:
    says = read_json(folder / CONFIG_FILE)
    text, vision = says.get("text_config"), says.get("vision_config")
    if says.get("model_type") != "florence2" or not isinstance(text, dict) or not isinstance(vision, dict):
        raise ValueError(
            f"its {CONFIG_FILE} is of another model ({escape_control_chars(str(says.get('model_type')))[:40]})"
        )
    if "auto_map" in says or (text.get("model_type"), vision.get("model_type")) != ("bart", "florence_vision"):
        raise ValueError("it is in Microsoft's own form, which is run by code that comes with it")
    try:
        config = Florence2Config(
            **{key: value for key, value in says.items() if key in _MODEL_KEYS - {"model_type"}},
            text_config={key: value for key, value in text.items() if key in _TEXT_KEYS},
            vision_config={key: value for key, value in vision.items() if key in _VISION_KEYS},
        )
        layers = (
            sum(config.vision_config.depths) + config.text_config.encoder_layers + config.text_config.decoder_layers
        )
    except Exception as why:  # whatever a value of the wrong kind brings about
        raise ValueError(f"its {CONFIG_FILE} cannot be read ({first_line(why)})") from None
    if layers > _MAX_LAYERS:
        raise ValueError(f"its {CONFIG_FILE} says {layers} layers")
    if config.vision_config.window_size > _MAX_WINDOW_SIZE:  # no weight's shape checks it
        raise ValueError(f"its {CONFIG_FILE} says windows of {config.vision_config.window_size}")
    compat.force_sdpa(config)
    return config


def _build_network(config: Florence2Config) -> Florence2ForConditionalGeneration:
    """Build the network on the meta device, which allocates nothing."""
    try:
        with torch.device("meta"):
            return Florence2ForConditionalGeneration(config).eval()
    except Exception as why:  # whatever numbers that do not go together bring about
        raise ValueError(f"its {CONFIG_FILE} describes no network ({first_line(why)})") from None


def _match_weights(network: Florence2ForConditionalGeneration, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """A tensor for each parameter name, after a check of all shapes, so that memory is bounded by the files."""
    sines = network.model.multi_modal_projector.visual_temporal_embed
    if _DERIVED_BUFFER not in given and max(sines.max_seq_len, sines.embed_dim) <= _MAX_IMAGE_SIDE:
        given = {**given, _DERIVED_BUFFER: type(sines)(network.config).pos_idx_to_embed}
    shared = next((given[name] for name in TIED_WEIGHTS if name in given), None)
    if shared is not None:
        tied = [given[name] for name in TIED_WEIGHTS if name in given]
        if any(twin.dtype != shared.dtype or not torch.equal(twin, shared) for twin in tied):
            raise ValueError("the weights do not fit: its output is not tied to its embedding, as in every Florence-2")
        given = {**given, **dict.fromkeys(TIED_WEIGHTS, shared)}
    expected = network.state_dict()
    kinds = {name: _describe_tensor(tensor) for name, tensor in given.items()}
    wrong = {name for name, tensor in expected.items() if name in given and kinds[name] != _describe_tensor(tensor)}
    faults = [
        _format_names("lack", [name for name in expected if name not in given]),
        _format_names("have", [escape_control_chars(name)[:80] for name in given if name not in expected], " beside"),
        _format_names(
            "differ:",
            [f"{n} is {kinds[n]} instead of {_describe_tensor(t)}" for n, t in expected.items() if n in wrong],
        ),
    ]
    if any(faults):
        raise ValueError("the weights do not fit: they " + ", and ".join(fault for fault in faults if fault))
    return given


def _assign_weights(network: Florence2ForConditionalGeneration, given: dict[str, Tensor]) -> None:
    """Copy weights into a network on the meta device; the mapped files may be closed later."""
    own = {name: given[name].to(torch.float32, copy=True) for name in network.state_dict() if name not in TIED_WEIGHTS}
    shared = given[TIED_WEIGHTS[0]].to(torch.float32, copy=True)
    network.load_state_dict({**own, **dict.fromkeys(TIED_WEIGHTS, shared)}, strict=True, assign=True)
    network.tie_weights()
    network.requires_grad_(False)


def _build_processor(folder: Path, network: Florence2ForConditionalGeneration) -> Florence2Processor:
    """The processor, after a check that it belongs to this network."""
    try:
        images = load_image_processor(folder)
        height, width = _image_size(images)
        images.image_seq_length = _count_image_tokens(network, height, width)
        processor = Florence2Processor(images, load_bart_tokenizer(folder))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as why:  # whatever a value of the wrong kind brings about; a Rust panic is not an Exception
        raise ValueError(f"its tokenizer or its processor cannot be read ({first_line(why)})") from None
    tokenizer, config = processor.tokenizer, network.config
    places = tokenizer.convert_tokens_to_ids([f"<loc_{i}>" for i in range(1000)])
    rows = config.text_config.vocab_size
    token_ids = (config.image_token_id, config.text_config.bos_token_id, config.text_config.eos_token_id)
    if len(set(places)) != 1000 or token_ids != (
        processor.image_token_id,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
    ):
        raise ValueError("its tokenizer lacks the words of a Florence-2, or gives them other numbers than its network")
    if max(places) >= rows or max(tokenizer.get_vocab().values()) > max(rows - 1, config.image_token_id):
        raise ValueError(f"its tokenizer has more words than its network, which has {rows}")
    return processor


def _image_size(images: CLIPImageProcessor) -> tuple[int, int]:
    """Height and width to which every image is resized, in pixels."""
    size = {key: value for key, value in dict(images.size).items() if value is not None}
    cropped = images.do_center_crop and dict(images.crop_size) != dict(images.size)
    if not images.do_resize or cropped or size.keys() != {"height", "width"}:
        raise ValueError("images are not resized to one size")
    if not all(type(side) is int and 0 < side <= _MAX_IMAGE_SIDE for side in size.values()):
        raise ValueError(f"images are resized to {size}")
    return size["height"], size["width"]


def _count_image_tokens(network: Florence2ForConditionalGeneration, height: int, width: int) -> int:
    """Number of tokens per image, from a forward pass on the meta device, which computes nothing."""
    vision = network.config.vision_config
    if max(height, width) > prod(vision.patch_stride) * vision.max_position_embeddings:
        raise ValueError(f"images of {height} by {width} pixels are more than the network has places for")
    features = network.get_image_features(torch.empty(1, 3, height, width, device="meta")).pooler_output
    return int(features.shape[1])


def _describe_tensor(tensor: Tensor) -> str:
    return f"{list(tensor.shape)}" if tensor.is_floating_point() else f"{list(tensor.shape)} of {tensor.dtype}"


def _format_names(verb: str, names: list[str], tail: str = "", most: int = 3) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{verb} {', '.join(names[:most])}{more}{tail}"
