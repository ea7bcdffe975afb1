"""OFA's weights: names of both families, sizes from shapes, invalid files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes.tiny_ofa import NUMBERS, REFERENCE, SKIP_REASON, TIED, fairseq_names, network, random_weights, weights
from safetensors.torch import save_file

from synthgen.models.checkpoint_reader import read_weights
from synthgen.models.ofa.model import SIZES, build_ofa
from synthgen.models.ofa.weights import build_from_weights, infer_config, load_weights, size_name

BUCKETS = {
    *(f"{half}.{name}" for half in ("encoder", "decoder") for name in ("token_rp_bucket", "image_rp_bucket")),
    "decoder.image_position_idx",
}


def answers(net) -> torch.Tensor:
    """What a network makes of one image and one text."""
    text = torch.tensor([[0, 40, 41, 590, 2]])
    image = net.extract_image_tokens(torch.randn(1, 3, 48, 80, generator=torch.Generator().manual_seed(0)))
    made = net.encode(image, [0], text, net.compute_position_bias(image, 5))
    return net.decode(torch.tensor([[[0, 7, 9]]]), net.init_cache(made, 3))


@pytest.mark.skipif(SKIP_REASON is not None, reason=str(SKIP_REASON))
@pytest.mark.parametrize("size", ["tiny", "base", "large"])
def test_names_and_shapes_are_the_published_ones(size):
    published = json.loads((REFERENCE / f"ofa_{size}_state_dict.json").read_text())
    with torch.device("meta"):
        state = build_ofa(size).state_dict()
    counted = {name for name in published if name.endswith("num_batches_tracked")}
    assert set(published) - set(state) - counted <= BUCKETS
    assert {name: list(tensor.shape) for name, tensor in state.items()} == {
        name: published[name]["shape"] for name in state
    }


@pytest.mark.parametrize("numbers", [*SIZES.values(), NUMBERS], ids=size_name)
def test_numbers_are_read_off_the_weights(numbers):
    with torch.device("meta"):
        state = build_ofa(numbers).state_dict()
    assert infer_config(state) == numbers
    assert infer_config(fairseq_names(state)) == numbers


def test_names_of_sizes():
    assert [size_name(numbers) for numbers in SIZES.values()] == ["tiny", "medium", "base", "large", "huge"]
    assert size_name(NUMBERS) == "48x2+2"


def test_fairseqs_names_load_to_the_same_network():
    given = fairseq_names(weights())
    assert len([name for name in given if name not in weights()]) > 30, "names that are the same prove nothing"
    assert torch.equal(answers(build_from_weights(given)), answers(network()))


@pytest.mark.parametrize("beside", [(), TIED, (*TIED, *BUCKETS, "encoder.embed_images.bn1.num_batches_tracked")])
def test_what_follows_from_the_rest_may_be_there_or_not(beside):
    given = dict(weights())
    for name in beside:
        tied = given["encoder.embed_tokens.weight"].clone()
        given[name] = tied if name in TIED else torch.zeros(3, 3, dtype=torch.int64)
    assert torch.equal(answers(build_from_weights(given)), answers(network()))


def test_half_precision_becomes_single():
    net = build_from_weights({name: tensor.half() for name, tensor in weights().items()})
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    assert float((answers(net) - answers(network())).abs().max()) < 0.02


def test_a_network_from_weights_is_whole_and_its_own():
    given = {name: tensor.clone() for name, tensor in weights().items()}
    net = build_from_weights(given)
    for tensor in given.values():
        tensor.fill_(torch.nan)
    assert not any(tensor.is_meta for tensor in [*net.parameters(), *net.buffers()])
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert net.decoder.output_projection.weight is net.encoder.embed_tokens.weight
    assert answers(net).isfinite().all()


NORM = "decoder.layers.1.cross_attn_mid_layer_norm.weight"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.pop(NORM), r"they lack decoder\.layers\.1\.cross_attn_mid_layer_norm\.weight"),
        (lambda w: w.update(stray=torch.ones(1)), "they have stray that this network has no place for"),
        (lambda w: w.update({NORM: torch.ones(47)}), r"they differ: .* is \[47\] instead of \[48\]"),
        (lambda w: w.update({NORM: 3}), r"is a int instead of \[48\]"),
        (lambda w: w.update({NORM: torch.ones(48, dtype=torch.int64)}), r"is \[48\] of torch\.int64 instead of"),
        (lambda w: w.update({NORM: torch.ones(1).expand(48)}), r"is \[48\] without as many numbers"),
        (lambda w: w.update({NORM: torch.ones(48).to_sparse()}), r"is \[48\] without as many numbers"),
        (lambda w: w.update({NORM.replace("cross_attn_mid_layer_norm", "cross_attn_ln"): w[NORM]}), "twice"),
        (lambda w: w.update({TIED[1]: torch.ones(600, 48)}), r"output_projection\.weight is not the embedding"),
        (lambda w: w.update({TIED[1]: torch.ones(600, 40)}), r"is \[600, 40\] instead of \[600, 48\]"),
    ],
)
def test_weights_that_do_not_fit_are_reported(change, sentence):
    given = dict(weights())
    change(given)
    net = build_ofa(NUMBERS)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=sentence) as told:
        load_weights(net, given)
    assert "\n" not in str(told.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_weights_of_another_size_are_reported():
    with pytest.raises(ValueError, match=r"they lack decoder\.layers\.2.* and \d+ more"):
        load_weights(build_ofa(replace(NUMBERS, decoder_layers=3)), weights())


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.clear(),
        lambda w: w.pop("encoder.embed_tokens.weight"),
        lambda w: w.update({"encoder.embed_tokens.weight": "a text"}),
        lambda w: w.update({"encoder.embed_tokens.weight": torch.ones(3)}),
        lambda w: w.update({"encoder.embed_tokens.weight": torch.ones(0, 48)}),
        lambda w: w.update({"encoder.embed_tokens.weight": torch.ones(1).expand(2**40, 48)}),
        lambda w: w.update({"encoder.embed_tokens.weight": torch.ones(1).expand(600, 2**16)}),
        lambda w: w.update({"encoder.layers.0.self_attn.c_attn": torch.ones(7)}),
        lambda w: w.update({"encoder.layers.0.fc1.weight": torch.ones(1).expand(2**30, 48)}),
        lambda w: w.update({"encoder.embed_image_positions.weight": torch.ones(1, 48)}),
        lambda w: w.update({"encoder.embed_image_positions.weight": torch.ones(1).expand(2**20 + 1, 48)}),
        lambda w: w.update({"encoder.token_rel_pos_table_list.0.weight": torch.ones(1, 4)}),
        lambda w: w.update({f"decoder.layers.{i}.x": torch.ones(1) for i in range(100)}),
        lambda w: w.update({f"encoder.embed_images.layer3.{i}.x": torch.ones(1) for i in range(100)}),
        lambda w: [w.pop(name) for name in list(w) if name.startswith("decoder.layers.")],
    ],
)
def test_weights_of_no_ofa_are_reported(change):
    given = dict(random_weights())
    change(given)
    with pytest.raises(ValueError, match=r"these weights are (not OFA's|of no OFA)") as told:
        build_from_weights(given)
    assert len(str(told.value)) < 250


# --- files -----------------------------------------------------------------------------------------------------------


def saved(path: Path) -> Path:
    given = {name: tensor.contiguous() for name, tensor in weights().items()}
    if path.suffix == ".safetensors":
        save_file(given, path, metadata={"format": "pt"})
    else:
        torch.save(given, path)
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "ofa.pt"])
def test_files_of_both_kinds_are_read(name, tmp_path):
    found = read_weights(saved(tmp_path / name))
    assert set(found) == set(weights())
    assert all(torch.equal(tensor, weights()[name]) for name, tensor in found.items())
    assert torch.equal(answers(build_from_weights(found)), answers(network()))


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_pickle_with_code_in_it_is_reported_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**weights(), "more": Payload()}, "pytorch_model.bin")
    with pytest.raises(ValueError, match="more than tensors, which is not executed here"):
        read_weights(tmp_path / "pytorch_model.bin")
    assert not (tmp_path / "executed").exists()
