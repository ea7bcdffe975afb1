"""Position encodings and proposals of a feature pyramid: the reference's values."""

from __future__ import annotations

import torch
from fakes.mqformer_parts import golden_part, is_close, shape_list

from synthgen.models.mqformer import position_encoding


def test_places(golden):
    g = golden_part(golden, "embeddings_proposals")
    nothing = torch.zeros(1, 5, 7, dtype=torch.bool)
    assert is_close(position_encoding.encode_pixel_positions(nothing, 32), g["pe.out_nomask"])
    assert is_close(position_encoding.encode_pixel_positions(nothing, 256), g["pe.out_128_5x7"])
    assert is_close(position_encoding.encode_pixel_positions(g["pe.mask"].bool(), 32), g["pe.out_mask"])
    assert is_close(position_encoding.inverse_sigmoid(g["inverse_sigmoid.in"]), g["inverse_sigmoid.out"])
    assert is_close(position_encoding.encode_box_positions(g["query_sine.in4"], 256), g["query_sine.out4"])
    assert is_close(position_encoding.encode_box_positions(g["query_sine.in4"][..., :2], 256), g["query_sine.out2"])
    refined = (g["refine.delta"] + position_encoding.inverse_sigmoid(g["refine.ref"])).sigmoid()
    assert is_close(refined, g["refine.out"])


def test_proposals_of_a_pyramid(golden):
    g = golden_part(golden, "embeddings_proposals")
    shapes = shape_list(g["proposals.spatial_shapes"])
    flat = g["proposals.padding_mask"].bool().split([h * w for h, w in shapes], dim=1)
    paddings = [one.reshape(2, h, w) for one, (h, w) in zip(flat, shapes, strict=True)]
    ratios = position_encoding.valid_ratios(paddings)
    assert is_close(ratios, g["encoder_ref.valid_ratios"])
    assert is_close(position_encoding.pixel_reference_points(shapes, ratios), g["encoder_ref.out"])
    memory, logits, valid = position_encoding.generate_proposals(g["proposals.memory"], paddings)
    assert is_close(memory, g["proposals.out_memory"])
    expected = g["proposals.out_proposals"]
    assert torch.equal(valid, expected.isfinite().all(-1))
    assert torch.equal(logits.isfinite(), expected.isfinite())
    assert is_close(logits[valid], expected[valid])
    assert not memory[~valid].any()
