"""Multi-scale deformable attention: the reference's values and gradients."""

from __future__ import annotations

import torch
from fakes.mqformer_parts import golden_part, is_close, shape_list

from synthgen.models.mqformer.deformable_attention import MSDeformAttn, ms_deform_attn


def test_deformable_attention_and_its_gradients(golden):
    g = golden_part(golden, "ms_deform_attn")
    value, locations, weights = (
        g[f"core.{name}"].clone().requires_grad_() for name in ("value", "sampling_locations", "attention_weights")
    )
    out = ms_deform_attn(value, shape_list(g["core.spatial_shapes"]), locations, weights)
    out.backward(g["core.grad_out"])
    assert is_close(out, g["core.out"])
    assert is_close(value.grad, g["core.grad_value"])
    assert is_close(locations.grad, g["core.grad_locations"])
    assert is_close(weights.grad, g["core.grad_weights"])


def test_the_layer_of_deformable_attention(golden):
    g = golden_part(golden, "ms_deform_attn")
    layer = MSDeformAttn(32, heads=4, levels=3, points=4)
    assert is_close(layer.sampling_offsets.bias, g["module.init.sampling_offsets.bias"])
    prefix = "module.weights."
    layer.load_state_dict({name.removeprefix(prefix): t for name, t in g.items() if name.startswith(prefix)})
    query, memory, shapes = g["module.query"], g["module.input_flatten"], shape_list(g["core.spatial_shapes"])
    padding = g["module.padding_mask"].bool()
    assert is_close(layer(query, g["module.ref2"], memory, shapes), g["module.out_ref2"])
    assert is_close(layer(query, g["module.ref2"], memory, shapes, padding), g["module.out_ref2_mask"])
    assert is_close(layer(query, g["module.ref4"], memory, shapes), g["module.out_ref4"])
    changed = torch.where(padding[..., None], 99.0, memory)
    assert is_close(layer(query, g["module.ref2"], changed, shapes, padding), g["module.out_ref2_mask"]), (
        "padding is nothing"
    )


def test_in_half_precision_attention_still_looks_where_it_should():
    """At noise of 168 pixels a row, of which half a pixel beside is something else."""
    torch.manual_seed(0)
    layer = MSDeformAttn(64, heads=4, levels=1, points=4)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    query, references, memory = torch.randn(1, 200, 64), torch.rand(1, 200, 1, 2), torch.randn(1, 100 * 168, 64)
    whole = layer(query, references, memory, [(100, 168)])
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(query, references, memory, [(100, 168)])
    assert (whole - half).square().mean().sqrt() / whole.std() < 0.03
