"""OFA's tokenizer: the original's IDs, prompts, captions, unusable vocabularies."""

from __future__ import annotations

import json
from functools import cache

import pytest
from fakes.tiny_ofa import MERGES, REFERENCE, SKIP_REASON, vocabulary, write_vocabulary

from synthgen.models.ofa import tokenizer as words
from synthgen.models.ofa.tokenizer import REGION_PROMPT, OfaTokenizer, load_tokenizer, normalize_caption

needs_vocabulary = pytest.mark.skipif(SKIP_REASON is not None, reason=str(SKIP_REASON))


@cache
def published() -> OfaTokenizer:
    return load_tokenizer(REFERENCE / "bpe")


@needs_vocabulary
def test_ids_are_the_originals():
    known = json.loads((REFERENCE / "golden_tokens.json").read_text())["ids"]
    whole = known.pop("full region source")
    bins = known.pop("bins <bin_10> <bin_200> <bin_500> <bin_999>")
    assert len(known) == 7
    for text, ids in known.items():
        assert published().encode(text) == ids
        assert published().decode(ids) == text.strip()
    assert [published().first_bin + number for number in (10, 200, 500, 999)] == bins
    assert published().encode_region_prompt([10, 200, 500, 999]) == whole


@needs_vocabulary
def test_the_published_vocabulary_is_of_the_published_size():
    assert (published().text_vocab_size, published().first_bin, published().vocab_size) == (50265, 58457, 59457)


@needs_vocabulary
def test_codes_and_bins_may_be_listed(tmp_path):
    given = json.loads((REFERENCE / "bpe" / "vocab.json").read_text())
    given |= {f"<code_{i}>": 50265 + i for i in range(8192)} | {f"<bin_{i}>": 58457 + i for i in range(1000)}
    (tmp_path / "vocab.json").write_text(json.dumps(given))
    (tmp_path / "merges.txt").write_text((REFERENCE / "bpe" / "merges.txt").read_text())
    listed = load_tokenizer(tmp_path)
    assert listed.encode_region_prompt([0, 1, 2, 999]) == published().encode_region_prompt([0, 1, 2, 999])
    assert listed.encode(" a <bin_7>") == published().encode(" a <bin_7>")


def toy() -> OfaTokenizer:
    return OfaTokenizer(vocabulary(), MERGES)


TEXTS = [
    "",
    " a cat",
    "  two  spaces ",
    "naïve café",
    "你好 🐈",
    "a\nb\tc",
    "don't stop",
    " 3,5 cats²",
    "</s> <bin_3> <mask>",
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_read_is_what_was_written(text):
    own = toy()
    ids = own.encode(text)
    assert own.decode(ids) == text.strip()
    assert all(3 < number < own.text_vocab_size for number in ids), "no text is taken for a special token"


def test_pairs_merge_in_their_order():
    own, ids = toy(), vocabulary()
    assert own.encode(" a cat") == [ids["Ġa"], ids["Ġcat"]]
    assert own.encode("  cat") == [ids["Ġ"], ids["Ġcat"]], "the last space belongs to the word"


def test_a_prompt_is_put_together():
    own = toy()
    assert own.first_bin == own.text_vocab_size + 8192
    assert own.encode_region_prompt([0, 999, 3, 3]) == [
        0, *own.encode(REGION_PROMPT), own.first_bin, own.first_bin + 999, own.first_bin + 3, own.first_bin + 3, 2
    ]  # fmt: skip
    assert {len(own.encode_region_prompt([n, 0, 999, n])) for n in range(1000)} == {
        len(own.encode_region_prompt([0] * 4))
    }


@pytest.mark.parametrize("bins", [[0, 0, 0], [0, 0, 0, 1000], [-1, 0, 0, 0], [0] * 5])
def test_what_is_no_box_is_reported(bins):
    with pytest.raises(ValueError, match="are not four bins of 0 to 999"):
        toy().encode_region_prompt(bins)


def test_what_is_no_text_is_not_read():
    own = toy()
    ids = own.encode(" a cat")
    assert (
        own.decode([0, *ids, 1, own.text_vocab_size - 1, own.text_vocab_size + 5, own.first_bin + 5, 2, 10**9])
        == "a cat"
    )


def test_letters_that_were_cut_are_shown_as_such():
    own = toy()
    assert own.decode(own.encode("é")[:1]) == "\ufffd"


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("A Dog.", "a dog."),
        ("...A well-known man/woman", "a well known man woman"),
        ("#<person> rides", "person rides"),
        ("two   spaces\n", "two spaces"),
        (" a  dog ", "a dog"),
        (".- dog", "dog"),
        ("", ""),
    ],
)
def test_captions_are_cleaned_as_for_training(caption, cleaned):
    assert normalize_caption(caption) == cleaned


def test_captions_are_cut_at_words():
    assert normalize_caption("A B  C d", 3) == "a b c"
    assert normalize_caption("a b", 3) == "a b"


def changed(**ids) -> dict:
    return {**vocabulary(), **ids}


@pytest.mark.parametrize(
    ("given", "merges", "sentence"),
    [
        ({}, MERGES, "does not begin with <s>, <pad>, </s>, <unk>"),
        (changed(**{"<pad>": 0, "<s>": 1}), MERGES, "does not begin with"),
        (changed(a=10**6), MERGES, "are not 0 to that"),
        (changed(a=vocabulary()["b"]), MERGES, "are not 0 to that"),
        (changed(**{"<bin_0>": len(vocabulary())}), MERGES, r"says 266 for <bin_0>, and OFA 8458"),
        (changed(**{"<code_9999>": 3}), MERGES, "for <code_9999>, and OFA"),
        (
            {{"x": "\ud800"}.get(token, token): number for token, number in vocabulary().items()},
            MERGES,
            r"^the vocabulary has a token that is no text \(half a pair of surrogates\)$",
        ),
        (vocabulary(), [("c", "o")], "the merges do not go with the vocabulary"),
        (vocabulary(), [("nothing", "a")], "the merges do not go with the vocabulary"),
        (vocabulary(), [("<mask>", "a")], "the merges do not go with the vocabulary"),  # a panic of tokenizers
    ],
)
def test_vocabularies_that_are_not_ofas_are_reported(given, merges, sentence):
    with pytest.raises(ValueError, match=sentence) as told:
        OfaTokenizer(given, merges)
    assert "\n" not in str(told.value)


def test_a_folder_is_read(tmp_path):
    own = load_tokenizer(write_vocabulary(tmp_path))
    assert own.encode(" a cat ²") == toy().encode(" a cat ²")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("vocab.json", None, "vocab.json cannot be read"),
        ("merges.txt", None, "merges.txt cannot be read"),
        ("vocab.json", b"\xff\xfe", "vocab.json is no text in UTF-8"),
        ("vocab.json", b"{", "not a JSON object of tokens"),
        ("vocab.json", b"[" * 100_000, "not a JSON object of tokens"),
        ("vocab.json", b'{"a": "0"}', "not a JSON object of tokens"),
        ("vocab.json", b'{"a": true}', "not a JSON object of tokens"),
        ("vocab.json", b"[]", "not a JSON object of tokens"),
        ("merges.txt", b"a b c\n", "'a b c', which is not a pair"),
        ("merges.txt", b"ab\n", "'ab', which is not a pair"),
        ("vocab.json", bytes(2000), "far larger than any OFA's"),
    ],
)
def test_files_that_are_not_what_they_say_are_reported(name, content, sentence, tmp_path, monkeypatch):
    folder = write_vocabulary(tmp_path)
    if "larger" in sentence:
        monkeypatch.setattr(words, "MAX_FILE_BYTES", 1000)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as told:
        load_tokenizer(folder)
    assert str(tmp_path) not in str(told.value)
