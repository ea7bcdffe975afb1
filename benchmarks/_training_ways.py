"""The ways of `training.py`: what each trains, step by step, on the same batches."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from synthgen.dataloading.collate import Batch
from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.dataloading.train_loader import TrainLoader
from synthgen.devices import resolve_device
from synthgen.models.mqformer import backbone
from synthgen.models.mqformer.criterion import SetCriterion
from synthgen.models.mqformer.matcher import HungarianMatcher
from synthgen.training import learner, trainer
from synthgen.training.optimizer import parameter_groups

#: Steps of `train` that are not counted: the first readers start, memory is asked for.
WARM = 2


@dataclass(frozen=True, slots=True)
class Content:
    """What a way is to do: steps of `batches` batches by turns, in the manifest's batch size, in canvases of `size`."""

    folder: str
    size: int
    device: str
    batches: int
    steps: int
    workers: int


class Parts:
    """Seconds by part, of what is inside of `part`; a part does not count what lies in a part within it.

    On a GPU every border waits for what was asked before, so parts are timed apart from the whole.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self.seconds = device, Counter[str]()
        self._within: list[float] = []
        self.on = False

    def now(self) -> float:
        """Of a GPU, the clock behind all that was asked of it; else what this process has computed."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def begin(self) -> None:
        self._within += [self.now(), 0.0]

    def end(self, name: str) -> None:
        inner, began = self._within.pop(), self._within.pop()
        whole = self.now() - began
        self.seconds[name] += whole - inner
        if self._within:
            self._within[-1] += whole

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if not self.on:
            yield
            return
        self.begin()
        yield
        self.end(name)

    def watch(self, module: nn.Module, name: str) -> None:
        """Take a module's forward pass as a part."""
        module.register_forward_pre_hook(lambda *_: self.begin() if self.on else None)
        module.register_forward_hook(lambda *_: self.end(name) if self.on else None)

    def wrapped(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A function, as a part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed


#: Takes a batch to a loss that can be made smaller.
Forward = Callable[[Batch], Tensor]


def ours(manifest: Manifest, device: torch.device, parts: Parts) -> tuple[nn.Module, list[dict[str, Any]], Forward]:
    """What `synthgen train` trains."""
    own = learner.SegmentationLearner(manifest, device)
    for name in ("backbone", "text_encoder", "pixel_decoder", "decoder"):
        parts.watch(own.module.get_submodule(name), name.replace("_", " "))
    HungarianMatcher.__call__ = parts.wrapped(HungarianMatcher.__call__, "matching")
    SetCriterion.__call__ = parts.wrapped(SetCriterion.__call__, "criterion")

    def forward(batch: Batch) -> Tensor:
        return torch.stack(list(own.compute_losses(batch, num_targets=max(own.count_targets(batch), 1)).values())).sum()

    return own.module, own.param_groups(manifest.schedule), forward


def mask2former(
    manifest: Manifest, device: torch.device, parts: Parts, queries: int = 100
) -> tuple[nn.Module, list[dict[str, Any]], Forward]:
    """transformers' Mask2Former with its own matching and losses, in float32 as ours are; its own other numbers."""
    model, half = manifest.model, manifest.schedule.precision == "bf16"
    numbers = backbone.SWIN_VARIANTS[model.backbone]
    network = Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            backbone_config=SwinConfig(
                embed_dim=numbers.embed_dim, depths=list(numbers.depths), num_heads=list(numbers.heads),
                window_size=numbers.window_size, drop_path_rate=0.3, out_features=[f"stage{i}" for i in (1, 2, 3, 4)],
            ),
            num_labels=80, num_queries=queries, train_num_points=manifest.schedule.mask_points,
            hidden_dim=model.hidden_dim, feature_size=model.hidden_dim, mask_feature_size=model.hidden_dim,
            encoder_layers=model.encoder_layers, decoder_layers=model.decoder_layers + 1,  # it counts a first look
            encoder_feedforward_dim=4 * model.hidden_dim, dim_feedforward=8 * model.hidden_dim,
            output_auxiliary_logits=True,
        )
    ).to(device).train()  # fmt: skip
    whole = network.model
    # As in `backbone.build_backbone`: from biases of 0, padding is 0 throughout, and now and then a gradient of it
    # is no number.
    whole.pixel_level_module.encoder.swin.embeddings.patch_embeddings.projection.reset_parameters()
    parts.watch(whole.pixel_level_module.encoder, "backbone")
    parts.watch(whole.pixel_level_module.decoder, "pixel decoder")
    parts.watch(whole.transformer_module, "decoder")
    parts.watch(network.criterion.matcher, "matching")
    parts.watch(network.criterion, "criterion")

    def forward(batch: Batch) -> Tensor:
        images = batch.images.to(device, non_blocking=True)
        masks = [target["masks"].to(device, non_blocking=True).float() for target in batch.targets]
        labels = [target["labels"][target["has_mask"]].to(device, non_blocking=True) for target in batch.targets]
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            found = network(pixel_values=images)
        layers = [
            {name: logits.float() for name, logits in layer.items()}
            for layer in [
                *found.auxiliary_logits,
                {name: found[name] for name in ("masks_queries_logits", "class_queries_logits")},
            ]
        ]
        losses = network.get_loss_dict(
            **layers[-1], mask_labels=masks, class_labels=labels, auxiliary_predictions=layers[:-1]
        )
        return network.get_loss(losses)

    return network, parameter_groups(network, manifest.schedule, {}), forward


def wide(manifest: Manifest, device: torch.device, parts: Parts) -> tuple[nn.Module, list[dict[str, Any]], Forward]:
    """The same with as many queries as ours."""
    return mask2former(manifest, device, parts, manifest.model.conditional_queries + manifest.model.learnable_queries)


def bare(manifest: Manifest, device: torch.device, parts: Parts) -> tuple[nn.Module, list[dict[str, Any]], Forward]:
    """The backbone alone: the limit."""
    network = backbone.build_backbone(
        manifest.model.backbone, drop_path=0.3, checkpointing=manifest.schedule.activation_checkpointing
    ).to(device).train()  # fmt: skip
    parts.watch(network, "backbone")

    def forward(batch: Batch) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=manifest.schedule.precision == "bf16"):
            features = network(batch.images.to(device, non_blocking=True))
        return torch.stack([feature.float().square().mean() for feature in features]).sum()

    return network, parameter_groups(network, manifest.schedule, {}), forward


#: Of "train" see `train`.
WAYS = {"ours": ours, "mask2former": mask2former, "wide": wide, "backbone": bare}


def learn(way: str, content: Content, seed: int) -> dict[str, Any]:
    """Train on batches that lie there: the rate, its CPU time, the most memory; then seconds by part."""
    manifest = load_manifest(Path(content.folder, "training.yaml")).model_copy(update={"seed": seed})
    device = resolve_device(content.device)
    cuda = device.type == "cuda"
    parts = Parts(device)
    torch.manual_seed(seed)
    with TrainLoader(manifest, batch_size=manifest.schedule.batch_size, num_workers=0) as loader:
        batches = [_padded(next(loader), content.size, pin=cuda) for _ in range(content.batches)]
    network, groups, forward = WAYS[way](manifest, device, parts)
    optimiser = torch.optim.AdamW(groups)
    parameters = [parameter for group in groups for parameter in group["params"]]

    def step(number: int) -> None:
        with parts.part("forward, rest"):
            optimiser.zero_grad(set_to_none=True)
            loss = forward(batches[number % len(batches)])
        with parts.part("backward"):
            loss.backward()
        with parts.part("optimiser"):
            nn.utils.clip_grad_norm_(parameters, manifest.schedule.max_grad_norm or math.inf)
            if not math.isfinite(float(loss.detach())):
                raise SystemExit(f"{way}: the loss of step {number} is no number")
            optimiser.step()

    for number in range(content.batches):  # all shapes once: memory is there, kernels are chosen
        step(number)
    if cuda:
        torch.cuda.synchronize()
    began, used = time.perf_counter(), time.process_time()
    for number in range(content.steps):
        step(number)
    if cuda:
        torch.cuda.synchronize()
    images = content.steps * manifest.schedule.batch_size
    seconds, used = time.perf_counter() - began, time.process_time() - used
    memory = most_memory(device)
    parts.on = True
    for number in range(content.steps):
        step(number)
    return {
        "rate": images / seconds,
        "cpu": 1000 * used / images,
        "memory": memory,
        "weights": sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6,
        "objects": sum(len(t["labels"]) for b in batches for t in b.targets) / sum(len(b.targets) for b in batches),
        "parts": {name: 1000 * value / images for name, value in parts.seconds.items()},
    }  # fmt: skip


def train(content: Content, seed: int) -> dict[str, Any]:
    """The product's own loop with its readers, views as they come: the rate, and the share of waiting for batches."""
    path, out = Path(content.folder, f"training-{seed}.yaml"), Path(content.folder, f"run-{seed}")
    path.write_text(json.dumps({**json.loads(Path(content.folder, "training.yaml").read_text()), "seed": seed}))
    trainer.train(path, out=out, device=content.device, num_workers=content.workers)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["of"] == "train"][WARM:]
    shutil.rmtree(out)
    seconds = [1 / line["images_per_s"] for line in lines]  # an image
    return {
        "rate": len(lines) / sum(seconds),
        "waiting": sum(line["data_share"] * each for line, each in zip(lines, seconds, strict=True)) / sum(seconds),
        "memory": lines[-1]["memory_mib"],
    }


def most_memory(device: torch.device) -> float:
    """MiB: of tensors on a GPU; else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM:")) / 1024


def _padded(batch: Batch, size: int, *, pin: bool) -> Batch:
    """The batch in canvases of size x size, so that all steps are of one shape, as in large-scale jitter."""
    more = (0, size - batch.images.shape[3], 0, size - batch.images.shape[2])
    targets: Sequence[dict[str, Any]] = [
        {**t, **{name: functional.pad(t[name], more) for name in ("masks", "ignore")}} for t in batch.targets
    ]
    whole = Batch(
        functional.pad(batch.images, more), functional.pad(batch.padding_mask, more, value=True), list(targets),
        batch.source_ids,
    )  # fmt: skip
    if not pin:
        return whole
    pinned = [{name: v.pin_memory() if isinstance(v, Tensor) else v for name, v in t.items()} for t in whole.targets]
    return Batch(whole.images.pin_memory(), whole.padding_mask.pin_memory(), pinned, whole.source_ids)
