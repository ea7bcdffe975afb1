"""The private parts of other packages do what the program needs, in the installed versions."""

from __future__ import annotations

import contextlib
import inspect
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.cocoeval import COCOeval
from torch.utils.checkpoint import checkpoint
from transformers import Florence2Config, Florence2ForConditionalGeneration, SwinBackbone, SwinConfig
from typer.core import TyperCommand

from synthgen import compat

BOX = {"bbox": [2.0, 3.0, 10.0, 20.0], "area": 200.0}
FAR = {"bbox": [50.0, 50.0, 10.0, 20.0], "area": 200.0}


def test_the_pickle_of_an_archive_is_the_one_that_torch_wrote(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"layer.weight": torch.ones(3)}, path)
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        assert compat.read_pickle_record(path) == archive.read(name)
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(RuntimeError):
        compat.read_pickle_record(tmp_path / "text")


@pytest.mark.parametrize("enabled", [True, False])
def test_each_block_of_a_swin_is_checkpointed_once(enabled: bool) -> None:
    runs: list[int] = []
    torch.manual_seed(0)
    swin = SwinBackbone(
        SwinConfig(embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4, drop_path_rate=0.0)
    ).train()  # fmt: skip
    blocks = [block for stage in swin.swin.encoder.layers for block in stage.blocks]
    plain = swin(torch.ones(1, 3, 32, 32)).feature_maps[-1]

    def run(function, *inputs):
        runs.append(len(inputs))
        return checkpoint(function, *inputs, use_reentrant=False)

    for block in blocks:
        compat.set_layer_checkpointing(block, run, enabled=enabled)
    found = swin(torch.ones(1, 3, 32, 32)).feature_maps[-1]
    assert torch.equal(found, plain)
    assert len(runs) == (len(blocks) if enabled else 0)
    swin.eval()(torch.ones(1, 3, 32, 32))
    assert len(runs) == (len(blocks) if enabled else 0), "without training nothing is computed again"


def test_writes_in_place_are_counted() -> None:
    """Those of an average of weights and of the optimizer that training uses."""
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.ones(4)
    versions = [compat.tensor_version(weight)]
    with torch.no_grad():
        weight.copy_(torch.ones(4))
    versions.append(compat.tensor_version(weight))
    torch.optim.AdamW([weight]).step()
    versions.append(compat.tensor_version(weight))
    torch.equal(weight, weight * 1)
    assert versions == sorted(set(versions)) and versions[-1] == compat.tensor_version(weight)
    with torch.inference_mode():
        assert compat.tensor_version(torch.zeros(1)) is None


def test_no_part_of_a_network_uses_the_attention_that_its_configuration_names() -> None:
    config = Florence2Config(attn_implementation="someone/kernel")
    assert config._attn_implementation == "someone/kernel"
    compat.force_sdpa(config)
    with torch.device("meta"):
        network = Florence2ForConditionalGeneration(config)
    used = {part.config._attn_implementation for part in network.modules() if hasattr(part, "config")}
    assert used == {"sdpa"}


def _evaluate(ground_truth: list[dict], detections: list[dict]) -> dict:
    evaluator = COCOeval(iouType="bbox")
    compat.set_coco_objects(evaluator, ground_truth, detections)
    evaluator.ious[1, 1] = evaluator.computeIoU(1, 1)
    return evaluator.evaluateImg(1, 1, evaluator.params.areaRng[0], 100)


def test_coco_matches_the_objects_that_it_is_given() -> None:
    truth = {"id": 7, "ignore": False, "iscrowd": 0, **BOX}
    found = _evaluate([truth], [{"id": 1, "score": 0.5, **FAR}, {"id": 2, "score": 0.9, **BOX}])
    assert found["dtIds"] == [2, 1]
    assert found["dtMatches"][0].tolist() == [7, 0]
    assert found["gtIgnore"].tolist() == [0]


def test_coco_accumulates_results_that_it_did_not_compute_itself() -> None:
    judge = COCOeval(iouType="bbox")
    judge.params.imgIds, judge.params.catIds = [0], [1]
    result = _evaluate([{"id": 1, "ignore": False, "iscrowd": 0, **BOX}], [{"id": 1, "score": 0.9, **BOX}])
    judge.evalImgs = [result for _ in judge.params.areaRng]
    compat.mark_coco_evaluated(judge)
    with contextlib.redirect_stdout(io.StringIO()):
        judge.accumulate()
    assert judge.eval["recall"].shape == (10, 1, 4, 3)
    assert np.allclose(judge.eval["precision"][..., 0, -1], 1)


def test_typer_formats_options_with_a_context_and_a_formatter() -> None:
    assert list(inspect.signature(TyperCommand.format_options).parameters) == ["self", "ctx", "formatter"]
    written: list[str] = []

    class Command(TyperCommand):
        def format_options(self, ctx, formatter):
            written.extend(type(one).__name__ for one in (ctx, formatter))
            with formatter.section("Options"):
                formatter.write_dl([record for p in self.get_params(ctx) if (record := p.get_help_record(ctx))])

    command = Command("name", callback=lambda: None, rich_markup_mode=None)
    assert "--help" in command.get_help(command.make_context("name", []))
    assert written == ["Context", "HelpFormatter"]
