"""Files of text encoders: pooling, damaged and foreign folders."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
import transformers
from fakes.text_encoder_folders import is_close, write_sentence_encoder

from synthgen.models.mqformer.text_encoder import (
    load_text_encoder,
)

TEXTS = ["horse", "the left horse", "", "two big red zebra of the right car", "🦓 sign", "a"]


def modules(folder: Path, pooling: object, kinds: tuple[str, ...] = ("Transformer", "Pooling", "Normalize")) -> None:
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": i, "path": paths.get(k, k), "type": f"sentence_transformers.models.{k}"}
                for i, k in enumerate(kinds)
            ]
        )
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.parametrize(
    ("says", "pool"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, lambda hidden: hidden[:, 0]),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, lambda hidden: hidden.mean(1)),
        ({"pooling_mode_max_tokens": True, "word_embedding_dimension": 16}, lambda hidden: hidden.amax(1)),
        ({"pooling_mode": "cls"}, lambda hidden: hidden[:, 0]),
    ],
)
def test_tokens_are_pooled_as_the_folder_says(tmp_path, says, pool):
    folder = write_sentence_encoder(tmp_path / "folder")
    modules(folder, says)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 5, "do_lower_case": true}')
    encoder = load_text_encoder(folder)
    ids = torch.tensor([[2, 6 + 4, 4, 3]])
    wanted = pool(transformers.BertModel.from_pretrained(folder).eval()(input_ids=ids).last_hidden_state)
    found = encoder(["Horse a", "two big red car of the"])
    assert is_close(found[:1], wanted / wanted.norm())
    assert encoder.tokenize.context_length == 5


def edit(name: str, **changes: object):
    def change(folder: Path) -> None:
        says = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**says, **changes}))

    return change


def put(name: str, content: bytes):
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


def drop(name: str):
    return lambda folder: (folder / name).unlink()


def template_of(number: int):
    def change(folder: Path) -> None:
        says = json.loads((folder / "tokenizer.json").read_text())
        says["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [number]
        (folder / "tokenizer.json").write_text(json.dumps(says))

    return change


def doubling_template(folder: Path) -> None:
    says = json.loads((folder / "tokenizer.json").read_text())
    says["post_processor"]["single"] *= 2
    (folder / "tokenizer.json").write_text(json.dumps(says))


def unknown_template(folder: Path) -> None:
    says = json.loads((folder / "tokenizer.json").read_text())
    says["post_processor"]["special_tokens"] = {}
    (folder / "tokenizer.json").write_text(json.dumps(says))


def panic_of_tokenizers(folder: Path) -> None:
    """A merge whose result is longer than every token, which ends a thread of Rust."""
    says = json.loads((folder / "tokenizer.json").read_text())
    says["model"] = {"type": "BPE", "vocab": {"abc": 0, "d": 1}, "merges": [["abc", "d"]]}
    (folder / "tokenizer.json").write_text(json.dumps(says))


def without_unknown_token(folder: Path) -> None:
    """It has the words of the first test text, "a photo", and fails on others."""
    says = json.loads((folder / "tokenizer.json").read_text())
    says["model"]["unk_token"] = "[NONE]"
    (folder / "tokenizer.json").write_text(json.dumps(says))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(print))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop("config.json"), r"its config\.json cannot be read \(No such file"),
        (drop("tokenizer.json"), r"no tokenizer\.json; transformers' AutoTokenizer"),
        (drop("model.safetensors"), r"no model\.safetensors and no pytorch_model\.bin"),
        (pickled, r"pytorch_model\.bin: it is no PyTorch checkpoint"),
        (put("config.json", b"[1]"), r"its config\.json is no JSON object"),
        (put("config.json", b"[" * 100_000), r"its config\.json is no JSON object"),
        (put("config.json", b"\xff"), r"its config\.json is no text"),
        (put("model.safetensors", b"{}"), r"model\.safetensors: it is no safetensors file"),
        (put("tokenizer.json", b"{}"), r"its tokenizer\.json cannot be read"),
        (edit("config.json", model_type="gpt2"), "is of 'gpt2', and only albert, bert"),
        (edit("config.json", model_type="clip"), "describes a network of"),
        (edit("config.json", num_hidden_layers=10**9), "says 1000000000 layers"),
        (edit("config.json", num_hidden_layers="2"), "says '2' layers"),
        (edit("config.json", num_hidden_layers=1), "have encoder.layer.1"),
        (edit("config.json", hidden_size=10**6), r"describes a network of [\d,]+ numbers, and its weights have"),
        (edit("config.json", vocab_size=10**12), "describes"),
        (edit("config.json", hidden_size=15), "describes no network"),
        (edit("config.json", intermediate_size=20), r"is \[24\] instead of \[20\]"),
        (edit("config.json", hidden_act="no such"), "describes no network"),
        (edit("config.json", hidden_size={}), "cannot be read"),
        (edit("config.json", pad_token_id=10**6), "describes|pads"),
        (put("config.json", b'{"hidden_size": ' + b"1" * 5_000 + b"}"), r"its config\.json is no JSON object"),
        (without_unknown_token, r"do not go together \(WordLevel error: Missing \[UNK\] token"),
        (panic_of_tokenizers, r"its tokenizer\.json cannot be read"),
        (template_of(99_999), "adds the word 99999"),
        (unknown_template, "do not go together"),
        (doubling_template, r"a long text has \d+ tokens, and the network has \d+ positions"),
        (lambda f: modules(f, {"pooling_mode": "mean"}, ("Transformer", "Pooling", "Dense")), "Pooling, Dense"),
        (lambda f: modules(f, {"pooling_mode_lasttoken": True}), "its pooling .pooling_mode_lasttoken. is none of"),
        (lambda f: modules(f, {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}), "its pooling"),
        (lambda f: modules(f, {"pooling_mode": [1]}), "its pooling"),
        (put("modules.json", b'{"a": 1}'), r"its modules\.json is no JSON list"),
        (
            put("modules.json", b'[{"type": "a.Transformer", "path": "../.."}, {"type": "a.Pooling", "path": "x"}]'),
            r"names a folder that is not in it \(\.\./\.\.\)",
        ),
        (
            put("modules.json", b'[{"type": "a.Transformer", "path": "/etc"}, {"type": "a.Pooling", "path": "x"}]'),
            "names a folder that is not in it",
        ),
    ],
)  # fmt: skip
def test_folders_that_are_none_are_reported_in_one_sentence(tmp_path, change, told, capfd):
    folder = write_sentence_encoder(tmp_path / "folder")
    change(folder)
    capfd.readouterr()
    with pytest.raises(ValueError, match=told) as error:
        load_text_encoder(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert str(tmp_path) not in str(error.value)
    out, err = capfd.readouterr()
    assert (out, "transformers" in err) == ("", False)


def test_code_and_places_that_a_configuration_names_are_not_looked_at(tmp_path):
    folder = write_sentence_encoder(tmp_path / "folder")
    wanted = load_text_encoder(folder)(TEXTS)
    edit(
        "config.json",
        auto_map={"AutoModel": "evil.Model"},
        _attn_implementation="someone/kernel",
        attn_implementation="someone/kernel",
        quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True},
        is_decoder=True,
        torch_dtype="float16",
        _name_or_path="someone/else",
    )(folder)
    (folder / "evil.py").write_text("raise SystemExit")
    assert torch.equal(load_text_encoder(folder)(TEXTS), wanted)


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match="it is no folder"):
        load_text_encoder(tmp_path / "none")
