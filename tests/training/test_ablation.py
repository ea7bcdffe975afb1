"""Ablations: which sources are synthetic, two arms that differ in their sources alone, the command."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import train_layers
from fakes.eval_results import difference

from synthgen.cli.main import main
from synthgen.dataloading.manifest import load_manifest
from synthgen.dataloading.manifest_check import check_manifest
from synthgen.errors import SynthgenError
from synthgen.records.sample import Sample
from synthgen.training import ablation as module
from synthgen.training import trainer
from synthgen.training.ablation import AblationResult, ablate, select_sources

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = """
name: toy
seed: 5
store: store
mixture:
  - {{shards: toy/train/human, task: instance, ratio: 1, images: photos}}
  - {{shards: toy/train/masks, task: {task}, ratio: 3, images: photos, min_predicted_iou: 0.5}}
  - {{shards: toy/train/masks, task: detection, ratio: 1, images: photos}}
augment: {{size: 32, scale: [0.5, 1.5]}}
eval_size: [32, 64]
{eval}
model: {{backbone: tiny, text_encoder: tiny, hidden_dim: 32, encoder_layers: 1, decoder_layers: 1, learnable_queries: 3,
  conditional_queries: 4}}
schedule: {{batch_size: 2, mask_points: 16, lr: 1.0e-3, warmup_steps: 0, steps: 2}}
dataloader: {{num_workers: 0}}
"""

EVAL = "eval: [{shards: held/val/human, task: instance, images: held}]"


def by_machines(number: int, dataset: str = "toy") -> Sample:
    """A mask by SAM, and a caption by a machine beside a person's."""
    captions = (train_layers.phrase("a cat"), train_layers.phrase("a cat on a mat", source="ofa base", score=-0.1))
    own = train_layers.annotation(number, mask_source="sam vit_b", predicted_iou=0.9, captions=captions)
    return train_layers.row(number, own, dataset=dataset)


def written(root: Path, task: str = "instance", *, evaluated: str = EVAL) -> Path:
    train_layers.commit(root, 6)
    train_layers.commit(root, 6, name="toy/train/masks", made=by_machines)
    train_layers.commit(root, 3, name="held/val/human")
    shutil.copytree(root / "photos", root / "held", dirs_exist_ok=True)  # others, to who looks at where they are
    path = root / "m.yaml"
    path.write_text(TEXT.format(task=task, eval=evaluated))
    return path


def left_out(path: Path, *without: str) -> list[str]:
    return [
        f"{one.name}: {', '.join(one.synthetic)}"
        for one in select_sources(check_manifest(path), without)
        if one.is_left_out
    ]


def test_synthetic_is_what_machines_made_of_what_is_learned(tmp_path):
    """Boxes beside masks by SAM are people's."""
    assert left_out(written(tmp_path)) == ["toy/train/masks instance: masks by sam vit_b"]
    path = written(tmp_path, "referring")
    named = "masks by sam vit_b, captions by human and ofa base"
    assert left_out(path) == [f"toy/train/masks referring: {named}"]
    path.write_text(path.read_text().replace("min_predicted_iou: 0.5", "caption_sources: [human]"))
    assert left_out(path) == ["toy/train/masks referring: masks by sam vit_b"]
    path.write_text(path.read_text().replace("caption_sources: [human]", "caption_sources: [ofa base]"))
    assert left_out(path) == ["toy/train/masks referring: masks by sam vit_b, captions by ofa base"]


def test_captions_by_machines_under_masks_by_people(tmp_path):
    def described(number: int, dataset: str) -> Sample:
        captions = (train_layers.phrase("a cat", source="ofa base"),)
        return train_layers.row(number, train_layers.annotation(number, captions=captions), dataset=dataset)

    path = written(tmp_path)
    train_layers.commit(tmp_path, 6, name="toy/train/captions", made=described)
    text = path.read_text().replace("toy/train/masks, task: instance", "toy/train/captions, task: referring")
    path.write_text(text.replace(", min_predicted_iou: 0.5", ""))
    assert left_out(path) == ["toy/train/captions referring: captions by ofa base"]
    path.write_text(path.read_text().replace("task: referring", "task: foreground"))  # which reads masks alone
    with pytest.raises(SynthgenError, match="no source of toy learns from masks or captions by machines"):
        select_sources(check_manifest(path))


def test_sources_can_be_chosen(tmp_path):
    path = written(tmp_path)
    assert left_out(path, "toy/train/human") == ["toy/train/human instance: "]
    assert len(left_out(path, "toy/train/masks")) == 2
    assert left_out(path, "toy/train/masks detection") == ["toy/train/masks detection: "]
    with pytest.raises(SynthgenError, match=r"--without toy/train/mask is no .*; did you mean 'toy/train/masks'"):
        select_sources(check_manifest(path), ["toy/train/mask"])
    with pytest.raises(SynthgenError, match=r"no source of the mixture \(have: toy/train/human, toy/train/masks\)"):
        select_sources(check_manifest(path), ["nothing"])
    with pytest.raises(
        SynthgenError, match=r"^--without names every source of toy, so nothing would be left to learn from"
    ):
        select_sources(check_manifest(path), ["toy/train/masks", "toy/train/human"])


def test_what_is_left_out_has_its_name_where_it_is_not_synthetic(tmp_path):
    checked = check_manifest(written(tmp_path))
    for without, what in (
        ([], "synthetic data"),
        (["toy/train/human"], "toy/train/human instance"),
        (["toy/train/masks"], "toy/train/masks instance and toy/train/masks detection"),
    ):
        judged = select_sources(checked, without)
        told = list(AblationResult(tmp_path, (5,), judged, (difference((2.0,), (1.0,)),), (), True).format_lines())
        assert f"  with {what} AP is 1.0 higher (one seed: it may be chance)" in told


def test_nothing_to_compare_by(tmp_path):
    with pytest.raises(SynthgenError, match="has no eval: and so nothing could be compared"):
        ablate(written(tmp_path, evaluated=""), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_arms_differ_in_their_sources_alone_and_a_killed_ablation_goes_on(tmp_path, monkeypatch):
    path, out = written(tmp_path), tmp_path / "out"
    real, trained = trainer.train, list[str]()

    def counted(*args: Any, **kwargs: Any) -> Any:
        trained.append(kwargs["out"].name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module.trainer, "train", counted)
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        ablate(Path("m.yaml"), num_seeds=2, out=Path("out"), echo=lambda *more: lines.extend(more))
    assert any("an image of the others is seen 2.5 times as often" in line for line in lines), lines
    assert [line.split()[2:] for line in lines[1:4]] == [
        ["20.0%", "50.0%", "-"], ["60.0%", "-", "masks", "by", "sam", "vit_b"], ["20.0%", "50.0%", "-"],
    ]  # fmt: skip
    done = ablate(Path("m.yaml"), num_seeds=2, out=Path("out"))
    runs = ["with-seed-5", "without-seed-5", "with-seed-6", "without-seed-6"]
    assert trained == [*runs[:3], *runs[2:]], "none that has ended is trained again"
    assert done.seeds == (5, 6) and done.unmeasured == () and done.is_rank0

    one, other = (load_manifest(out / f"{name}.yaml") for name in ("with-seed-6", "without-seed-6"))
    assert len(one.mixture) == 3 and other.mixture == (one.mixture[0], one.mixture[2])
    assert one.model_copy(update={"name": other.name, "mixture": other.mixture}) == other
    assert one.seed == 6 and load_manifest(path.absolute()).schedule == one.schedule
    begun = [json.loads((out / name / "log.jsonl").read_text().splitlines()[0]) for name in runs[:2]]
    assert [len((out / name / "log.jsonl").read_text().splitlines()) for name in runs] == [3] * 4  # and an evaluation
    assert begun[0]["lr"] == begun[1]["lr"] and begun[0]["loss"] != begun[1]["loss"]

    said = json.loads((out / "ablation.json").read_text())
    assert said["seeds"] == [5, 6] and [s["is_left_out"] for s in said["sources"]] == [False, True, False]
    measured = json.loads((out / "with-seed-6" / "results-00000002.json").read_text())["measured"][0]
    ap = next(d for d in said["differences"] if d["is_main"])
    assert ap["name"] == "AP" and ap["with_it"][1] == measured["values"]["AP"]
    assert ap["mean"] == pytest.approx(sum(ap["by_seed"]) / 2)
    before = (out / "ablation.json").read_bytes()
    ablate(Path("m.yaml"), num_seeds=2, out=Path("out"))
    assert len(trained) == 5 and (out / "ablation.json").read_bytes() == before
    text = "\n".join(done.format_lines())
    assert "held/val/human instance" in text and "with synthetic data AP is" in text


def test_another_recipe_is_refused_and_other_layers_are_measured(tmp_path):
    path, out = written(tmp_path), tmp_path / "out"
    first = ablate(path, num_seeds=1, out=out)
    assert {one.task for one in first.differences} == {"instance"}
    path.write_text(path.read_text().replace("task: instance, images: held}]", "task: detection, images: held}]"))
    second = ablate(path, num_seeds=1, out=out)
    assert {one.task for one in second.differences} == {"detection"}
    results = out / "with-seed-5" / "results-00000002.json"
    results.write_text("{")
    with pytest.raises(SynthgenError, match=r"results-00000002\.json is damaged; delete it, and the same command"):
        ablate(path, num_seeds=1, out=out)
    results.unlink()
    assert ablate(path, num_seeds=1, out=out).differences == second.differences
    ours = json.loads(results.read_text())
    old = copy.deepcopy(ours) | {"rules": 0}
    old["measured"][0]["values"]["AP"] = 99.0
    results.write_text(json.dumps(old))  # of an earlier version, whose rules were others
    assert ablate(path, num_seeds=1, out=out).differences == second.differences
    assert json.loads(results.read_text()).items() >= ours.items()
    path.write_text(path.read_text().replace("lr: 1.0e-3", "lr: 2.0e-3"))
    plans = {plan: plan.read_bytes() for plan in out.glob("*.yaml")}
    with pytest.raises(SynthgenError, match=r"was trained with another schedule\.lr; choose another --out"):
        ablate(path, num_seeds=1, out=out)
    assert len(plans) == 2 and {plan: plan.read_bytes() for plan in out.glob("*.yaml")} == plans


def test_the_command(tmp_path, monkeypatch, capsys):
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["synthgen", "ablate", "--manifest", "m.yaml", "--seeds", "1"])
    with pytest.raises(SystemExit) as end:
        main()
    out = capsys.readouterr().out
    assert not end.value.code
    assert "1 of 2: ablations/toy/with-seed-5" in out and "in full: ablations/toy/ablation.json" in out
    assert "one seed: it may be chance" in out


@pytest.mark.slow
def test_torchrun(tmp_path):
    """Processes train and measure together, and one of them speaks; the same command finds all of it done."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29577"),
        *("-m", "synthgen", "ablate", "--manifest", str(written(tmp_path)), "--out", str(tmp_path / "both")),
        *("--seeds", "1", "--device", "cpu"),
    ]
    own = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=own)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("in full: ") == 1 and done.stdout.count("1 of 2: ") == 1
    content = (tmp_path / "both" / "ablation.json").read_bytes()
    assert {one["name"] for one in json.loads(content)["differences"]} >= {"AP", "AP50"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "both").glob("*/step-*.pt")}
    assert subprocess.run(command, capture_output=True, text=True, env=own).returncode == 0
    assert len(before) == 2 and before == {path: path.stat().st_mtime_ns for path in before}
    assert (tmp_path / "both" / "ablation.json").read_bytes() == content
