"""The files of a dataset of Hugging Face's `datasets`, by split.

- A folder that `Dataset.save_to_disk` wrote (`state.json` names its Arrow files), or `DatasetDict.save_to_disk`
  (`dataset_dict.json` names the splits).
- Parquet or Arrow files in the folder, in `data/`, or in one subfolder (a configuration), with the names that
  https://huggingface.co/docs/hub/datasets-file-names-and-splits describes: `train-00000-of-00002.parquet`.
- Folders of images with `metadata.jsonl`, `metadata.csv` or `metadata.parquet` (ImageFolder): the folder itself, or
  one for each split.

Nothing of it is executed: a loading script is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from synthgen.errors import SynthgenError
from synthgen.formats.readers._packed_files import list_folder, split_word

TABLES = (".parquet", ".arrow")
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")

_MAX_JSON_BYTES = 2**24
_NUMBERED = re.compile(r"(?P<name>.+)-[0-9]{5,}-of-[0-9]{5,}(-[0-9a-f]{16})?")
_SPLIT_NAME = re.compile(r"\w{1,100}", re.ASCII)


def find_tables(path: Path) -> dict[str, list[Path]]:
    """The files of each split, sorted; empty if there are none.

    Args:
        path: folder of a dataset, or one table.

    Raises:
        SynthgenError: the folder has several configurations, holds only a script, or lacks files that it names.
    """
    if path.is_file():
        return {_split_of_table(path): [path]} if path.name.lower().endswith((*TABLES, ".jsonl", ".csv")) else {}
    if (path / "dataset_dict.json").is_file():
        return _find_saved_splits(path)
    if (path / "state.json").is_file():
        return _find_saved(path)
    files, folders = list_folder(path)
    for found in (_by_split(files), _by_split(list_folder(path / "data")[0]), _find_metadata(path, files, folders)):
        if found:
            return found
    configurations = {
        folder: found for folder in folders[:100] if (found := _by_split(list_folder(folder)[0], folder.name))
    }
    if len(configurations) == 1 or (configurations and all(split_word(folder.name) for folder in configurations)):
        merged: dict[str, list[Path]] = {}
        for found in configurations.values():
            for split, paths in found.items():
                merged.setdefault(split, []).extend(paths)
        return merged
    if configurations:
        names = ", ".join(folder.name for folder in list(configurations)[:8])
        raise SynthgenError(f"{path} holds several configurations ({names}); name the folder of one of them")
    if any(one.suffix == ".py" for one in files):
        raise SynthgenError(
            f"{path} holds a loading script and no data, and synthgen executes no code of datasets; load it with a "
            "release of `datasets` that does, and write it with save_to_disk"
        )
    return {}


def read_json(path: Path) -> object:
    """The content of a small JSON file.

    Args:
        path: of an untrusted file.

    Raises:
        SynthgenError: it cannot be read, is large, or is not valid.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_JSON_BYTES + 1)
        if len(text) > _MAX_JSON_BYTES:
            raise SynthgenError(f"{path} has more than {_MAX_JSON_BYTES // 2**20} MiB; is it the right file?")
        return json.loads(text)
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
    except (ValueError, RecursionError):
        raise SynthgenError(f"{path} is not valid JSON; write the dataset again with save_to_disk") from None


def _find_saved_splits(path: Path) -> dict[str, list[Path]]:
    content = read_json(path / "dataset_dict.json")
    splits = content.get("splits") if isinstance(content, dict) else None
    if not isinstance(splits, list) or not all(isinstance(s, str) and _SPLIT_NAME.fullmatch(s) for s in splits):
        raise SynthgenError(f"{path / 'dataset_dict.json'} has no list of splits; write it again with save_to_disk")
    return {split: paths for split in splits[:1_000] for paths in _find_saved(path / split).values()}


def _find_saved(path: Path) -> dict[str, list[Path]]:
    """The Arrow files that `state.json` names."""
    content = read_json(path / "state.json")
    state = content if isinstance(content, dict) else {}
    files, split = state.get("_data_files"), state.get("_split")
    names = [one.get("filename") if isinstance(one, dict) else None for one in files] if isinstance(files, list) else []
    if not names or not all(isinstance(name, str) and _is_plain_name(name) for name in names):
        raise SynthgenError(f"{path / 'state.json'} names no data files; write it again with save_to_disk")
    if state.get("_indices_data_files"):
        raise SynthgenError(
            f"{path} stores a selection of rows apart from the rows; write it with flatten_indices() and save_to_disk"
        )
    if len(set(names)) < len(names):
        raise SynthgenError(f"{path / 'state.json'} names a file twice; write it again with save_to_disk")
    paths = [path / str(name) for name in names]
    if lost := next((one for one in paths if not one.is_file()), None):
        raise SynthgenError(f"no file {lost}, which {path / 'state.json'} names; complete the download")
    return {split if isinstance(split, str) and _SPLIT_NAME.fullmatch(split) else "train": paths}


def _is_plain_name(name: str) -> bool:
    return bool(re.fullmatch(r"[^/\\\0]{1,250}", name)) and name.isprintable() and name not in (".", "..")


def _by_split(files: list[Path], folder: str = "") -> dict[str, list[Path]]:
    """The tables by split; the name of their folder counts where it is not the user's own folder."""
    found: dict[str, list[Path]] = {}
    for path in files:
        if path.name.lower().endswith(TABLES) and path.name not in METADATA:
            found.setdefault(_split_of_table(path, folder), []).append(path)
    return found


def _split_of_table(path: Path, folder: str = "") -> str:
    """`train-00000-of-00002.parquet` is of "train"; else a word in the name or in the folder's name; else "train"."""
    numbered = _NUMBERED.fullmatch(path.stem)
    name = numbered["name"] if numbered else path.stem
    if numbered and _SPLIT_NAME.fullmatch(name) and name != "data":
        return name
    return split_word(name) or split_word(folder) or "train"


def _find_metadata(path: Path, files: list[Path], folders: list[Path]) -> dict[str, list[Path]]:
    own = [one for one in files if one.name in METADATA]
    if own:
        return {"train": own[:1]}
    found = {}
    for folder in [*folders[:100], *list_folder(path / "data")[1][:100]]:
        listed = next(_metadata_in(folder), None)
        if listed is not None:
            found[folder.name] = [listed]
    return found


def _metadata_in(folder: Path) -> Iterator[Path]:
    return (folder / name for name in METADATA if (folder / name).is_file())
