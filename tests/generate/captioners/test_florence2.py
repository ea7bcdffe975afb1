"""Florence-2 as a captioner: equal to transformers for any batch, one encoding per image, refused options."""

from __future__ import annotations

import json
import logging
import re
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import tiny_florence2
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import Florence2ForConditionalGeneration, Florence2Processor, GenerationConfig

from synthgen import plugins
from synthgen.errors import BrokenWorkerError, SynthgenError
from synthgen.generate.captioners import florence2
from synthgen.generate.stages import captions as stage
from synthgen.records.sample import Annotation, Sample
from synthgen.text.phrases import clean_text, comparison_key

PLUGIN_PACKAGE = "generate.captioners"


@pytest.fixture(autouse=True, scope="module")
def offline():
    """Whatever is tried here, it is not the network; and so little to compute is done sooner by one thread."""

    def refused(*_):
        raise AssertionError("it wants the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refused)
        patch.setattr(socket, "getaddrinfo", refused)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_florence2.write(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture
def own(folder, tmp_path) -> Path:
    """A folder of one's own to spoil."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


def make(folder, **options):
    return plugins.build_plugin(
        PLUGIN_PACKAGE, "florence2", {"checkpoint": str(folder), "device": "cpu", "max_length": 12, **options}
    )


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def some_boxes(height, width, count, seed=0):
    corners = np.sort(np.random.default_rng(seed).random((count, 2, 2)), axis=1).reshape(count, 4)
    return (corners * np.array([width, height] * 2)).astype(np.float32)


IMAGES = [noise(100, 150, 1), noise(150, 90, 2), noise(60, 60, 3)]
BOXES = [some_boxes(100, 150, 4, 1), some_boxes(150, 90, 0), some_boxes(60, 60, 5, 2)]


def told(captioner, images=IMAGES, boxes=BOXES, top_k=5):
    categories = [[""] * len(own) for own in boxes]
    return list(captioner.caption(images, boxes, categories, [[] for _ in boxes], top_k))


def alike(some, others) -> bool:
    """The same words; scores the same up to rounding, which goes with the size of a batch."""
    pairs = [pair for a, b in zip(some, others, strict=True) for pair in zip(a, b, strict=True)]
    return all(
        [c.text for c in a] == [c.text for c in b]
        and [c.score for c in a] == pytest.approx([c.score for c in b], abs=1e-4)
        for a, b in pairs
    )


def views(captioner, images=IMAGES, boxes=BOXES):
    return [captioner._prepare_input(image, own) for image, own in zip(images, boxes, strict=True) if len(own)]


# --- what it says ----------------------------------------------------------------------------------------------------


def test_captions_for_each_box_in_order_best_first_none_twice(folder):
    captioner = make(folder)
    found = told(captioner)
    assert [len(own) for own in found] == [4, 0, 5]
    assert captioner.source == "florence2 64x2+2"
    assert len({captions[0].text for own in found for captions in own}) > 5  # boxes are not all alike to it
    for captions in (captions for own in found for captions in own):
        assert 1 <= len(captions) <= 5
        assert len({comparison_key(c.text) for c in captions}) == len(captions)
        assert [c.score for c in captions] == sorted((c.score for c in captions), reverse=True)
        assert all(c.text and c.text == clean_text(c.text).lower() and c.source == captioner.source for c in captions)
        assert not any("<" in c.text for c in captions)


def test_one_look_at_an_image_gives_what_a_look_for_each_region_gives(folder):
    """The reference: the whole of transformers, one region a call, by way of the processor and of pixels."""
    captioner = make(folder)
    looks = []
    captioner.network.model.vision_tower.register_forward_pre_hook(lambda _, given: looks.append(len(given[0])))
    found = captioner._forward(views(captioner), beams=10)
    assert looks == [2]
    network = Florence2ForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    processor = Florence2Processor.from_pretrained(folder, local_files_only=True)
    search = GenerationConfig(
        num_beams=10, num_return_sequences=10, max_new_tokens=12, no_repeat_ngram_size=3, early_stopping=True,
        return_dict_in_generate=True, output_scores=True, bos_token_id=0, eos_token_id=2, pad_token_id=1,
        decoder_start_token_id=2,
    )  # fmt: skip
    network.generation_config = search  # else what it leaves out is the checkpoint's, here a forced end
    regions = [(image, box) for image, own in zip(IMAGES, BOXES, strict=True) for box in own]
    for (image, box), hypotheses in zip(regions, [each for own in found for each in own], strict=True):
        height, width = image.shape[:2]
        x0, x1 = (int(1000 * float(x) / width) for x in box[[0, 2]])
        y0, y1 = (int(1000 * float(y) / height) for y in box[[1, 3]])
        text = f"<REGION_TO_DESCRIPTION><loc_{x0}><loc_{y0}><loc_{x1}><loc_{y1}>"
        given = processor(text=[text], images=[image], return_tensors="pt")
        expected = network.generate(**given, decoder_input_ids=torch.tensor([[2, 0]]), generation_config=search)
        length = expected.sequences.shape[1] - 2
        assert [tokens[:length] for tokens, _ in hypotheses] == expected.sequences[:, 2:].tolist()
        assert [score for _, score in hypotheses] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


def test_scores_are_mean_log_probabilities_of_what_was_chosen(folder):
    """Told the caption, the network gives its tokens, and its end where it has one, just these probabilities."""
    captioner = make(folder, max_length=9)
    network = tiny_florence2.network()
    (view,) = views(captioner, IMAGES[:1], BOXES[:1])
    ((*boxes,),) = captioner._forward([view], beams=10)
    ends = []
    for words, hypotheses in zip(view.box_tokens, boxes, strict=True):
        prompt = captioner._build_prompt()
        prompt[captioner.is_box_token] = words
        for tokens, score in hypotheses:
            length = tokens.index(2) + 1 if 2 in tokens else len(tokens)
            ends.append(2 in tokens)
            with torch.no_grad():
                logits = network(
                    input_ids=prompt[None],
                    pixel_values=view.pixels[None],
                    decoder_input_ids=torch.tensor([[2, 0, *tokens]]),
                ).logits[0, 1:-1]
            chosen = logits.log_softmax(-1)[torch.arange(length), torch.tensor(tokens[:length])]
            assert score == pytest.approx(chosen.mean().item(), abs=1e-4)
    assert any(ends), "none came to its end"
    assert not all(ends), "none was cut"


@given(st.integers(1, 5000), st.integers(1, 5000), st.data())
def test_the_words_of_a_box_are_its_thousandths(captioner_of_words, width, height, data):
    x0, x1 = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    y0, y1 = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    own = captioner_of_words.encode_boxes(np.array([[x0, y0, x1, y1]], np.float32), height, width)
    first = captioner_of_words.location_token_ids[0]
    for number, x, size in zip((own - first)[0].tolist(), (x0, y0, x1, y1), (width, height) * 2, strict=True):
        exact = Fraction(1000 * x, size)
        assert number == min(999, int(exact)) or (exact.denominator == 1 and number == exact - 1)  # float32's edge


@pytest.fixture(scope="module")
def captioner_of_words(folder):
    return make(folder)


def test_the_words_of_a_box_are_cut_off_not_rounded(captioner_of_words):
    boxes = np.array(
        [[0, 0, 640, 480], [0.63, 0.47, 0.65, 0.49], [320, 240, 639.9, 479.9], [100.5, 50, 200, 1e6]], np.float32
    )
    numbers = captioner_of_words.encode_boxes(boxes, 480, 640) - captioner_of_words.location_token_ids[0]
    assert numbers.tolist() == [[0, 0, 999, 999], [0, 0, 1, 1], [500, 500, 999, 999], [157, 104, 312, 999]]


def test_what_stands_in_the_prompt(captioner_of_words):
    tokenizer = captioner_of_words.processor.tokenizer
    text = tokenizer.decode(captioner_of_words._build_prompt())
    asked = f"What does the region {'<loc_0>' * 4} describe?"
    assert text == f"{'<image>' * tiny_florence2.TOKENS}<s>{asked}</s>"
    assert captioner_of_words.is_image_token.sum() == tiny_florence2.TOKENS
    assert captioner_of_words.is_box_token.sum() == 4


@pytest.mark.skipif(tiny_florence2.tiny_ofa.SKIP_REASON is not None, reason=str(tiny_florence2.tiny_ofa.SKIP_REASON))
def test_the_prompt_in_barts_own_vocabulary(tmp_path):
    """The numbers that published tokenizers give; from vocab.json and merges.txt, which folders may have instead."""
    folder = tiny_florence2.write(tmp_path / "large", vocab_size=50_265 + len(tiny_florence2.ADDED))
    change(folder / "config.json", image_token_id=51_289)
    (folder / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(tiny_florence2.tiny_ofa.REFERENCE / "bpe" / name, folder / name)
    added = {50_265 + i: {"content": token, "special": True} for i, token in enumerate(tiny_florence2.ADDED)}
    change(folder / "tokenizer_config.json", added_tokens_decoder=added)
    captioner = make(folder)
    asked = [2264, 473, 5, 976, 1437, *[50_269] * 4, 6190, 116]
    assert captioner._build_prompt().tolist() == [51_289] * tiny_florence2.TOKENS + [0, *asked, 2]
    assert captioner.location_token_ids[[0, -1]].tolist() == [50_269, 51_268]


# --- whatever the batch ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box_chunk", [1, 3])
def test_batches_and_chunks_change_nothing(folder, box_chunk):
    whole = told(make(folder, box_chunk=1000))
    narrow = make(folder, box_chunk=box_chunk)
    assert alike(told(narrow), whole)
    assert alike([told(narrow, [image], [own])[0] for image, own in zip(IMAGES, BOXES, strict=True)], whole)
    by_one = [
        [told(narrow, [image], [box[None]])[0][0] for box in own] for image, own in zip(IMAGES, BOXES, strict=True)
    ]
    assert alike(by_one, whole)


def test_twice_the_same(folder):
    captioner = make(folder)
    assert told(captioner) == told(captioner) == told(make(folder))


def test_two_threads_at_once(folder):
    captioner = make(folder)
    expected = told(captioner)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda _: told(captioner), range(4))) == [expected] * 4


def test_fewer_captions_are_the_best_of_more(folder):
    captioner = make(folder)
    assert told(captioner, top_k=2) == [[captions[:2] for captions in own] for own in told(captioner, top_k=5)]


def test_more_captions_than_beams(folder):
    found = told(make(folder, num_beams=2, max_length=6), IMAGES[:1], BOXES[:1], top_k=20)
    assert all(2 < len(captions) <= 20 for captions in found[0])


def test_many_boxes_on_one_image_go_in_chunks(folder):
    captioner, seen = make(folder, box_chunk=64, max_length=3), []
    captioner.network.get_encoder().register_forward_pre_hook(
        lambda _, __, given: seen.append(len(given["inputs_embeds"])), with_kwargs=True
    )
    image, boxes = noise(90, 120), some_boxes(90, 120, 500)
    assert len(told(captioner, [image], [boxes])[0]) == 500
    assert max(seen) == 64
    assert sum(seen) == 500
    seen.clear()
    told(captioner, [image], [boxes[:40]], top_k=20)  # twice the beams, half the boxes
    assert seen == [32, 8]


def test_a_chunk_is_reckoned_from_what_a_box_takes(folder):
    captioner = make(folder)
    assert captioner.oom_batcher.max_boxes == 256  # tiny: as many as there may be
    network = captioner.network
    base = florence2.estimate_box_bytes(network, 577, 10, 32)
    assert florence2.estimate_box_bytes(network, 577, 20, 32) == 2 * base
    assert 10 * 4 * (2 * 2 * 577 * 64) < base < 10 * 4 * (2 * 577 * 64 * 4 + 60 * 1291)


def test_no_images_and_no_boxes(folder):
    captioner = make(folder)
    assert told(captioner, [], []) == []
    assert told(captioner, IMAGES[:2], [BOXES[1]] * 2) == [[], []]


def test_inputs_are_not_written_to(folder):
    image, boxes = noise(20, 20), some_boxes(20, 20, 2)
    image.flags.writeable = boxes.flags.writeable = False
    assert len(told(make(folder, max_length=4), [image], [boxes])[0]) == 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 40), (40, 3), (4, 4)])
def test_images_and_boxes_of_any_size(folder, shape):
    height, width = shape
    boxes = np.array([(0, 0, width, height), (0, 0, 0.25, 0.25), (width, height, width, height)], np.float32)
    image = np.zeros((*shape, 3), np.uint8)
    image[..., 0] = 200
    assert all(told(make(folder, max_length=4), [image], [boxes])[0])
    red = make(folder)._prepare_input(image, boxes).pixels
    assert red.shape == (3, tiny_florence2.SIDE, tiny_florence2.SIDE)
    assert (red[0] > 0).all()  # channels are channels, even where an image has 3 rows
    assert (red[1:] < 0).all()


def test_bf16(folder):
    assert make(folder).network.dtype == torch.float32
    assert make(folder, precision="bf16").network.dtype == torch.bfloat16
    found = told(make(folder, precision="bf16"))
    assert all(captions and all(np.isfinite(c.score) for c in captions) for own in found for captions in own)


def test_less_memory_than_hoped_for(folder, monkeypatch, caplog):
    captioner = make(folder, batch_size="3", box_chunk=8)
    expected = told(captioner)
    whole = captioner.network.generate

    def tight(**given):
        if len(given["decoder_input_ids"]) > 2:
            raise torch.OutOfMemoryError("too much")
        return whole(**given)

    monkeypatch.setattr(captioner.network, "generate", tight)
    with caplog.at_level(logging.WARNING):
        assert alike(told(captioner), expected)
    assert captioner.batch_size == 1
    assert captioner.oom_batcher.max_boxes == 2
    assert "going on with 2 boxes at once" in caplog.text


def test_a_lost_gpu_is_reported(folder, monkeypatch):
    captioner = make(folder)

    def lost(**_):
        raise torch.AcceleratorError("CUDA error: an illegal memory access")

    monkeypatch.setattr(captioner.network, "generate", lost)
    with pytest.raises(BrokenWorkerError, match="nvidia-smi"):
        told(captioner)


def test_beams_that_read_the_same_are_one_caption(folder):
    captioner = make(folder)
    ids = captioner.processor.tokenizer.convert_tokens_to_ids

    def said(*tokens, score=-1.0):
        return [*(ids(token) for token in tokens), 2, 1], score

    found = captioner._decode_captions(
        [
            said("A", "Ġcat", "Ġ", "Ġ", score=-0.5),
            said("a", "Ġcat", score=-0.6),
            said("<loc_7>", "Ġa", "Ġcat", "<od>", "/", score=-0.7),
            said("<loc_7>", score=-0.8),
            said(score=-0.9),
            said("Ġ", score=-1.0),
            said("ca", "t", "Ġ", "o", "n", score=-1.1),
            said("n", "o", "n", "e", score=-1e9),
        ],
        top_k=5,
    )
    assert [(c.text, c.score) for c in found] == [("a cat", -0.5), ("cat on", -1.1)]


def test_through_the_stage(folder):
    boxes = [tuple(float(x) for x in (x0, y0, x1 - x0, y1 - y0)) for x0, y0, x1, y1 in BOXES[0]]
    annotations = tuple(Annotation(i, box, "dog", iscrowd=i == 1) for i, box in enumerate(boxes))
    sample = Sample(1, "k", "f.jpg", 100, 150, annotations)
    work = stage.build("florence2", {"checkpoint": str(folder), "device": "cpu"})
    (done,) = work.process([sample], IMAGES[:1])
    assert [len(a.captions) for a in done.annotations] == [5, 0, 5, 5]
    assert all(c.source == "florence2 64x2+2" for a in done.annotations for c in a.captions)


# --- which weights ---------------------------------------------------------------------------------------------------


def settle(folder, **options):
    return plugins.resolve_options(PLUGIN_PACKAGE, "florence2", {"checkpoint": str(folder), **options})


def test_settle_names_the_weights_and_not_their_place(folder, own):
    settled = settle(folder)
    assert len(settled["weights"]) == 64
    assert settled["checkpoint"] == str(folder)
    (own / "README.md").write_text("a card")
    (own / ".gitattributes").write_text("")
    (own / "generation_config.json").write_text('{"num_beams": 1, "forced_bos_token_id": 0}')
    assert settle(own)["weights"] == settled["weights"]
    assert told(make(own)) == told(make(folder))
    assert settle(own, weights=settled["weights"])["weights"] == settled["weights"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json"])
def test_every_file_counts(folder, own, name, tmp_path):
    other = tiny_florence2.write(tmp_path / "other", seed=1)
    if name.endswith(".json"):
        (own / name).write_text((own / name).read_text() + "\n")
    else:
        shutil.copy(other / name, own / name)
    assert settle(own)["weights"] != settle(folder)["weights"]


def test_files_that_do_not_count_are_not_opened(folder, own):
    """Whatever else transformers would read, be it named by a configuration or by its own habits."""
    with (own / "chat_template.jinja").open("wb") as file:
        file.truncate(3 * 2**30)
    (own / "additional_chat_templates").mkdir()
    (own / "additional_chat_templates" / "x.jinja").write_text("{{ x }}")
    (own / "tokenizer.4.0.0.json").write_text("damaged")
    (own / "vocab.json").write_text("incomplete without merges.txt")
    weights = settle(own)["weights"]
    assert weights == settle(folder)["weights"]
    # Named there it stays unread, too; but where it is named counts.
    change(own / "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.0.json"], chat_template="x" * 1000)
    change(own / "tokenizer_config.json", tokenizer_file="../tiny/config.json", init_inputs=[1], auto_map={})
    assert settle(own)["weights"] != weights
    assert told(make(own)) == told(make(folder))


def test_words_of_a_tokenizer_count(folder, own):
    """What is read is what was hashed: two letters that change places are another checkpoint."""
    path = own / "tokenizer.json"
    says = json.loads(path.read_text())
    words = says["model"]["vocab"]
    words["x"], words["y"] = words["y"], words["x"]
    path.write_text(json.dumps(says))
    assert settle(own)["weights"] != settle(folder)["weights"]
    tokenizer = make(own).processor.tokenizer
    assert tokenizer.convert_tokens_to_ids(["x", "y"]) == [words["x"], words["y"]]


def test_settings_of_images_may_be_nested(folder, own):
    says = json.loads((own / "preprocessor_config.json").read_text())
    (own / "preprocessor_config.json").unlink()
    (own / "processor_config.json").write_text(json.dumps({"image_processor": says}))
    assert told(make(own)) == told(make(folder))
    (own / "preprocessor_config.json").write_text(json.dumps({**says, "do_resize": False}))
    assert told(make(own)) == told(make(folder)), "what is nested goes first, as in transformers"
    (own / "processor_config.json").write_text("{}")
    assert "not resized to one size" in sentence_of(own)
    (own / "preprocessor_config.json").unlink()
    assert "its processor_config.json says nothing of images" in sentence_of(own)


def test_a_checkpoint_other_than_the_jobs_is_refused(folder, tmp_path):
    weights = settle(folder)["weights"]
    with pytest.raises(SynthgenError, match="asks for another checkpoint than"):
        make(tiny_florence2.write(tmp_path / "other", seed=1), weights=weights)


def test_weights_in_parts_in_half_and_with_twins(folder, own):
    """As others save them: several files, 16 bits, the embedding by another of its names, sines left out."""
    given = {name: tensor.half() for name, tensor in tiny_florence2.weights().items()}
    given["lm_head.weight"] = given.pop(tiny_florence2.EMBEDDING)
    given["model.language_model.encoder.embed_tokens.weight"] = given["lm_head.weight"].clone()
    del given["model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"]
    (own / "model.safetensors").unlink()
    for part in (0, 1):
        save_file(dict(list(given.items())[part::2]), own / f"model-0000{part + 1}-of-00002.safetensors")
    found, expected = told(make(own)), told(make(folder))
    assert found[0][0][0].score == pytest.approx(expected[0][0][0].score, abs=0.05)


# --- refusals --------------------------------------------------------------------------------------------------------


def sentence_of(folder, **options) -> str:
    with pytest.raises(SynthgenError) as why:
        settle(folder, **options)
    text = str(why.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def test_without_a_checkpoint():
    text = sentence_of("")
    assert "--checkpoint FOLDER" in text
    assert "hf download florence-community/Florence-2-base --local-dir weights/florence-2-base" in text


def test_no_such_folder(tmp_path):
    assert f"no folder {tmp_path / 'none'}" in sentence_of(tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert "no folder" in sentence_of(tmp_path / "file")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"])
def test_missing_files(own, name):
    (own / name).unlink()
    assert f"{own} lacks {name}; fetch the whole folder, as `hf download" in sentence_of(own)


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_pickled_weights_are_not_read(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (own / "model.safetensors").unlink()
    torch.save({**tiny_florence2.weights(), "more": Payload()}, own / "pytorch_model.bin")
    text = sentence_of(own)
    assert "pickled only (pytorch_model.bin), which may run code and is not read" in text
    assert "hf download" in text
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("length", [4, 300, -1000])
def test_truncated_weights(own, length):
    path = own / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    text = sentence_of(own)
    assert "model.safetensors: it is" in text
    assert "truncated" in text or "damaged" in text


def change(path: Path, **changes) -> None:
    says = json.loads(path.read_text())
    for key, value in changes.items():
        part, _, last = key.partition("__")
        (says[part] if last else says)[last or part] = value
    path.write_text(json.dumps(says))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "bart"}, "its config.json is of another model (bart)"),
        ({"model_type": "\x1b[2J"}, "of another model (\\x1b[2J)"),
        ({"text_config": None}, "of another model"),
        ({"text_config__model_type": "florence2_language"}, "Microsoft's own form"),
        ({"auto_map": {"AutoConfig": "evil.Config"}}, "Microsoft's own form, which is run by code"),
        ({"text_config__d_model": "many"}, "its config.json cannot be read"),
        ({"text_config__encoder_layers": 10**9}, "layers"),
        ({"vision_config__depths": [10**9, 1, 1, 1]}, "layers"),
        ({"vision_config__window_size": 10**6}, "its config.json says windows of 1000000"),
        ({"text_config__encoder_layers": 3}, "they lack model.language_model.encoder.layers.2"),
        ({"text_config__encoder_layers": 1}, "they have model.language_model.encoder.layers.1"),
        ({"text_config__decoder_ffn_dim": 10**9}, "instead of [1000000000"),
        ({"text_config__vocab_size": 1500}, "they differ: model.language_model.shared.weight is [1291, 64] instead of"),
        ({"text_config__activation_function": "no such"}, "its config.json describes no network"),
        ({"image_token_id": 7}, "gives them other numbers"),
        ({"text_config__eos_token_id": 5}, "gives them other numbers"),
    ],
    ids=str,
)
def test_configurations_of_other_models(own, changes, sentence):
    change(own / "config.json", **changes)
    assert sentence in sentence_of(own)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": {"height": 10**6, "width": 10**6}}, "images are resized to"),
        ({"size": {"shortest_edge": 64}}, "not resized to one size"),
        ({"do_resize": False}, "not resized to one size"),
        ({"size": {"height": 512, "width": 512}}, "more than the network has places for"),
        ({"size": 7}, "cannot be read"),
    ],
    ids=str,
)
def test_images_that_the_network_cannot_take(own, changes, sentence):
    change(own / "preprocessor_config.json", **{"do_center_crop": False, **changes})
    assert sentence in sentence_of(own)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}'], ids=repr)
def test_files_that_are_not_what_they_are_called(own, name, content):
    (own / name).write_bytes(content)
    if (name, content) in {("tokenizer_config.json", b'{"a": 1}'), ("preprocessor_config.json", b'{"a": 1}')}:
        content = b"{}"
    assert str(own) in sentence_of(own)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"extra_special_tokens": {f"a{i}": f"<z{i}>" for i in range(100_000)}},
            "larger than any model's|100000 words",
        ),
        ({"extra_special_tokens": {f"a{i}": f"<z{i}>" for i in range(3000)}}, "lists 3000 words, more than any"),
        ({"additional_special_tokens": [f"<z{i}>" for i in range(3000)]}, "lists 3000 words, more than any"),
        ({"added_tokens_decoder": {str(i): {"content": f"<z{i}>"} for i in range(3000)}}, "lists 3000 words"),
        ({"extra_special_tokens": 7}, "has a int for a list of words"),
        ({"bos_token": "x" * 300}, "has 'xxxx.* for a token"),
        ({"eos_token": {"content": None}}, "for a token"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_the_input_of_a_tokenizer_is_bounded(own, changes, sentence):
    change(own / "tokenizer_config.json", **changes)
    started = time.monotonic()
    assert re.search(sentence, sentence_of(own))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("key", "count", "sentence"),
    [
        ("vocab", 70_000, "lists 7\\d+ words, more than any Florence-2's"),
        ("merges", 140_000, "lists 14\\d+ words"),
        ("added_tokens", 3000, "lists 4\\d+ words"),
    ],
)
def test_the_words_of_a_tokenizer_are_bounded(own, key, count, sentence):
    says = json.loads((own / "tokenizer.json").read_text())
    if key == "vocab":
        says["model"][key] |= {f"w{i}": len(says["model"][key]) + i for i in range(count)}
    elif key == "merges":
        says["model"][key] += ["a b"] * count
    else:
        says[key] += [{**says[key][0], "content": f"<w{i}>"} for i in range(count)]
    (own / "tokenizer.json").write_text(json.dumps(says))
    assert re.search(sentence, sentence_of(own))


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "added_tokens.json"]
)
def test_files_larger_than_any_models_are_not_read(own, name):
    with (own / name).open("ab") as file:
        file.truncate(2**32)
    assert f"its {name} is larger than any model's" in sentence_of(own)


@pytest.mark.parametrize("numbers", [[0, 0, 0], [1, 1], [1, 1, "1"], "111", [1, 1, float("inf")], [1, -1, 1]], ids=str)
def test_images_are_normalised_by_three_numbers(own, numbers):
    change(own / "preprocessor_config.json", image_std=numbers)
    assert "its preprocessor_config.json says image_std" in sentence_of(own)


def test_labels_of_a_configuration_are_left_alone(folder, own):
    """`num_labels` would have a name made for each."""
    change(own / "config.json", num_labels=999, torch_dtype="float16", use_cache=False)
    change(own / "config.json", text_config__num_labels=999, vision_config__num_labels=999)
    captioner = make(own)
    config = captioner.network.config
    assert 999 not in {part.num_labels for part in (config, config.text_config, config.vision_config)}
    assert told(captioner) == told(make(folder))


def test_a_tokenizer_of_another_model(own):
    path = own / "tokenizer.json"
    path.write_text(path.read_text().replace("<loc_", "<spot_"))
    assert "its tokenizer lacks the words of a Florence-2" in sentence_of(own)


def test_merges_on_which_tokenizers_panics(own):
    says = json.loads((own / "tokenizer.json").read_text())
    says["model"]["merges"] = [["<mask>", "a"]]
    (own / "tokenizer.json").write_text(json.dumps(says))
    assert "its tokenizer or its processor cannot be read" in sentence_of(own)


def test_weights_that_are_there_twice(own):
    shutil.copy(own / "model.safetensors", own / "model.fp16.safetensors")
    assert "twice" in sentence_of(own)


def test_an_output_of_its_own(own):
    given = tiny_florence2.weights()
    save_file({**given, "lm_head.weight": given[tiny_florence2.EMBEDDING] + 1}, own / "model.safetensors")
    assert "not tied to its embedding" in sentence_of(own)


def test_nothing_that_comes_with_it_is_executed(own, tmp_path):
    (own / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Evil: ...\n")
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        change(own / name, auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoProcessor": "evil.Evil"})
    for part in ("", "text_config__", "vision_config__"):
        for name in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
            change(own / "config.json", **{f"{part}{name}": "evil/kernels"})
    make(own)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_beams": 1}, "--num-beams 1 should be from 2 to"),
        ({"num_beams": 10_000}, "--num-beams 10000 should be"),
        ({"max_length": 1}, "--max-length 1 should be"),
        ({"max_length": 200}, "--max-length 200 is more than this network's 126"),
        ({"precision": "fp8"}, "--precision fp8 should be"),
        ({"device": "gpu"}, "--device gpu should be"),
        ({"batch_size": "0"}, "--batch-size 0 should be"),
    ],
    ids=str,
)
def test_options_that_cannot_be(folder, options, sentence):
    given = {"checkpoint": str(folder), "device": "cpu", **options}
    with pytest.raises(SynthgenError) as why:
        plugins.resolve_options(PLUGIN_PACKAGE, "florence2", given)
    assert sentence in str(why.value)
