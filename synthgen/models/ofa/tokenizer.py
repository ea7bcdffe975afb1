"""OFA's tokenizer: GPT-2's byte pairs with BART's ids, followed by image codes and bins of box corners."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

BOS, PAD, EOS, UNK = 0, 1, 2, 3
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
NUM_IMAGE_CODES, NUM_BINS = 8192, 1000

#: With two leading spaces, as in pre-training; the bins follow without a space.
REGION_PROMPT = "  what does the region describe? region:"

#: OFA's files have 0.9 MB and 0.5 MB.
MAX_FILE_BYTES = 16 * 2**20

_CODE_OR_BIN_TOKEN = re.compile(r"<(code|bin)_(\d{1,4})>")


class OfaTokenizer:
    """Converts texts to ids and back.

    Attributes:
        text_vocab_size: smaller ids are text tokens.
        vocab_size: of the whole vocabulary, 59,457 in every published OFA.
    """

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> None:
        """Build from a vocabulary, with ids 0 to n - 1, and merges in order of priority.

        The vocabulary may contain `<code_0>` to `<code_8191>` and `<bin_0>` to `<bin_999>`, or some of them; their ids
        always follow the text tokens.

        Args:
            vocabulary: text tokens and their ids; may contain codes and bins.
            merges: pairs of tokens whose concatenation is a token, in order of priority.

        Raises:
            ValueError: not OFA's vocabulary; one sentence.
        """
        text = {token: number for token, number in vocabulary.items() if not _CODE_OR_BIN_TOKEN.fullmatch(token)}
        self.text_vocab_size = len(text)
        self.first_bin = self.text_vocab_size + NUM_IMAGE_CODES
        self.vocab_size = self.first_bin + NUM_BINS
        if [text.get(token) for token in SPECIAL_TOKENS] != [BOS, PAD, EOS, UNK]:
            raise ValueError(f"the vocabulary does not begin with {', '.join(SPECIAL_TOKENS)}, as OFA's")
        if sorted(text.values()) != list(range(self.text_vocab_size)):
            raise ValueError(f"the ids of the vocabulary's {self.text_vocab_size} tokens of text are not 0 to that")
        if any("\ud800" <= letter <= "\udfff" for token in text for letter in token):
            raise ValueError("the vocabulary has a token that is no text (half a pair of surrogates)")
        for token, number in vocabulary.items():
            extra = _CODE_OR_BIN_TOKEN.fullmatch(token)
            first = self.text_vocab_size if extra and extra[1] == "code" else self.first_bin
            if extra and number != first + int(extra[2]):
                raise ValueError(f"the vocabulary says {number} for {token}, and OFA {first + int(extra[2])}")
        # tokenizers checks it as well, but ends with a Rust panic if the result is longer than every token.
        odd = next((pair for pair in merges if not {*pair, "".join(pair)} <= text.keys()), None)
        if odd is not None:
            raise ValueError(f"the merges do not go with the vocabulary ({' '.join(odd)[:40]!r} gives no token of it)")
        try:
            self._tokenizer = Tokenizer(models.BPE(text, list(merges)))
        except Exception as why:  # tokenizers raises Exception itself
            raise ValueError(f"the merges do not go with the vocabulary ({str(why).splitlines()[0][:120]})") from None
        # No special tokens are registered: a caption that contains "</s>" is encoded as ordinary text.
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = decoders.ByteLevel()
        self._prompt_ids = self.encode(REGION_PROMPT)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without `<s>` and `</s>`. OFA's texts are lower case and begin with a space."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, stripped; special tokens, codes and bins are left out."""
        mask = self._tokenizer.token_to_id("<mask>")
        words = [number for number in ids if len(SPECIAL_TOKENS) <= number < self.text_vocab_size and number != mask]
        text: str = self._tokenizer.decode(words, skip_special_tokens=False)
        return text.strip()

    def encode_region_prompt(self, bins: Sequence[int]) -> list[int]:
        """Ids of the prompt for a box.

        The ids are concatenated directly: tokenizing a string would insert spaces that OFA was not trained with.

        Args:
            bins: four bins of the box corners (XYXY), from `preprocess.quantize_boxes`.

        Raises:
            ValueError: invalid bins.
        """
        if len(bins) != 4 or not all(0 <= number < NUM_BINS for number in bins):
            raise ValueError(f"{list(bins)[:5]} are not four bins of 0 to {NUM_BINS - 1}")
        return [BOS, *self._prompt_ids, *(self.first_bin + number for number in bins), EOS]


def load_tokenizer(folder: Path) -> OfaTokenizer:
    """Load the tokenizer of a checkpoint folder: vocab.json and merges.txt.

    Args:
        folder: a checkpoint folder in Hugging Face format.

    Raises:
        ValueError: the files are missing, or not OFA's; one sentence without the folder.
    """
    vocabulary = _parse_vocab(_read_text(folder / "vocab.json"))
    lines = _read_text(folder / "merges.txt").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    odd = next((pair for pair in merges if len(pair) != 2), None)
    if odd is not None:
        raise ValueError(f"merges.txt has the line {' '.join(odd)[:40]!r}, which is not a pair of tokens")
    return OfaTokenizer(vocabulary, [(first, second) for first, second in merges])


def normalize_caption(caption: str, max_words: int | None = None) -> str:
    """A caption normalized as in OFA's training: lower case, some punctuation removed, single spaces, limited
    length.

    Args:
        caption: any text.
        max_words: the limit of the length, in words between single spaces; None = no limit.
    """
    caption = caption.lower().lstrip(",.!?*#:;~").replace("-", " ").replace("/", " ").replace("<person>", "person")
    caption = re.sub(r"\s{2,}", " ", caption).rstrip("\n").strip(" ")
    return " ".join(caption.split(" ")[:max_words])


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path.name} is far larger than any OFA's")
        return path.read_text(encoding="utf-8")
    except OSError as why:
        raise ValueError(f"{path.name} cannot be read ({why.strerror or why})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is no text in UTF-8") from None


def _parse_vocab(text: str) -> dict[str, int]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(type(number) is int for number in found.values()):
        raise ValueError("vocab.json is not a JSON object of tokens and their ids")
    return found
