"""The dataset card: its front matter, its tables, and names that try to be Markdown, HTML or YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from fakes.packed_exports import HOSTILE
from fakes.packed_summaries import export_with_summary, make_summary
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # `rich` needs it

from synthgen.export.dataset_card import MAX_ROWS, escape_markdown, make_dataset_card
from synthgen.export.exporters import hf
from synthgen.export.summary import CategoryCounts, ExportFile

ATTACKS = [
    HOSTILE,
    "<script>alert(1)</script>",
    "[a](javascript:alert(1))",
    "![a](http://evil.example/x.png)",
    "a | b\n| --- |\n# title",
    "---\nlicense: mit\n---",
    "``` `` `",
    "<http://evil.example>",
    "www.evil.example http://evil.example a@evil.example",
    "&lt;b&gt; &copy;",
    "\\[x\\](y)",
    "a\\",
    "$x$ ~~y~~ **z** _w_",
    "\ud800 \x00 \x1b[31m \u202e",
    "",
]


def parse(text: str) -> list[Any]:
    """The tokens of the card below its front matter, those inside lines included."""
    body = text.split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    return [inner for token in tokens for inner in (token, *(token.children or []))]


def front_matter(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n", 2)[1])
    return found


@pytest.mark.parametrize("attack", ATTACKS)
def test_names_are_text(attack: str) -> None:
    """The same kinds of tokens as with a harmless name, so no link, no picture, no HTML, no table cell more."""
    kinds = [token.type for token in parse(make_dataset_card(make_summary(attack)))]
    plain = [token.type for token in parse(make_dataset_card(make_summary("cat")))]
    kept = {"link_open", "image", "html_inline", "html_block", "code_inline", "em_open", "strong_open", "s_open"}
    assert [kind for kind in kinds if kind in kept] == [kind for kind in plain if kind in kept]
    for kind in ("td_open", "tr_open", "heading_open", "fence", "blockquote_open", "bullet_list_open"):
        assert kinds.count(kind) == plain.count(kind), kind


@given(st.text(st.sampled_from("\\`*_[]()<>&#|~!-:@.a; \n\u202e") | st.characters(), max_size=40))
def test_an_escaped_name_is_one_text_on_one_line(name: str) -> None:
    line = escape_markdown(name)
    assert "\n" not in line and line
    tokens = MarkdownIt("commonmark").enable("table").parse(f"| a |\n| --- |\n| {line} |")
    cells = [token for token in tokens if token.type == "inline"]
    assert len(cells) == 2
    assert {one.type for one in cells[1].children} <= {"text", "text_special"}
    shown = "".join(one.content for one in cells[1].children)
    expected = "".join(" " if char.isspace() else char if char.isprintable() else "\ufffd" for char in name)
    assert shown.split() == (expected.split() or ["(no", "name)"])


def test_each_character_with_a_meaning_is_escaped() -> None:
    """Also those that mean nothing alone: a later change of a line must not give them a meaning."""
    for char in "\\`*_{}[]()#+!|~:@.$^=":
        assert escape_markdown(char) == f"\\{char}"
    assert escape_markdown("<&>") == "&lt;&amp;&gt;" and escape_markdown("a\r\nb\u202e\0") == "a  b\ufffd\ufffd"
    assert escape_markdown("x" * 300) == "x" * 199 + "…"


def test_the_front_matter_is_that_of_the_hub() -> None:
    found = front_matter(make_dataset_card(make_summary("a: [b\n--- # c")))
    assert found["pretty_name"] == "a: [b --- # c/train/masks"
    assert found["license"] == "other" and found["size_categories"] == ["1K<n<10K"]
    assert found["annotations_creators"] == ["machine-generated", "expert-generated"]
    assert found["configs"][0]["data_files"][1] == {"split": "val", "path": "data/val-*.parquet"}
    assert found["dataset_info"]["splits"] == [
        {"name": "train", "num_bytes": 1_000, "num_examples": 4_000},
        {"name": "val", "num_bytes": 10, "num_examples": 10},
    ]
    assert "configs" not in front_matter(make_dataset_card(make_summary(format="coco")))


@pytest.mark.parametrize("images", ["embed", "none", "link"])
def test_datasets_reads_a_folder_with_its_card(
    tmp_path: Path, images: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder, summary = export_with_summary(tmp_path, "hf", hf, images)
    (folder / "README.md").write_text(make_dataset_card(summary))
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 3, "val": 2}
    assert not caplog.records  # it ignores what it cannot use of a card, with a warning


def test_the_card_names_numbers_models_and_limits() -> None:
    text = make_dataset_card(make_summary())
    assert "2 of these annotations are not in this export" in text
    for words in ("8,000", "4,010", "9,020", "reviewed", "Check before publishing", "not stated", '"stage": "masks"'):
        assert words in text
    assert "no\\_box" in text and "3 images of cat" in text


def test_masks_by_people_alone_carry_no_warning_about_models() -> None:
    text = make_dataset_card(make_summary(provenance={"machine": 0, "reviewed": 0, "human": 5}, models={}))
    assert "A model drew" not in text and "licence of each image" in text


def test_very_many_categories_are_cut_and_counted() -> None:
    many = tuple(CategoryCounts(n, f"name{n}", n, 0) for n in range(MAX_ROWS + 7))
    text = make_dataset_card(make_summary(categories=many))
    assert "7 more categories" in text and "name506" in text and "| 6 | name6 |" not in text


def test_the_example_of_webdataset_names_the_shards() -> None:
    files = tuple(ExportFile(f"train-{n:06d}.tar", 1, "") for n in range(12))
    summary = make_summary(format="webdataset", data_files={"train": "train-*.tar"}, files=files)
    assert '"train-{000000..000011}.tar"' in make_dataset_card(summary)
    one = make_summary(format="webdataset", data_files={"train": "train-*.tar"}, files=files[:1])
    assert '"train-000000.tar"' in make_dataset_card(one)
