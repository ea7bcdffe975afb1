"""Two images of one id in a file: the same image listed again, or two images whose annotations cannot be told apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import SourceFinding
from synthgen.ingest.image_table import ImageTable

_MAX_EXAMPLES = 3


def settle_repeated_ids(
    images: ImageTable,
    rows: NDArray[np.int64],
    ids: NDArray[np.int64],
    where: str,
    report: Callable[[SourceFinding], None],
    *,
    refuse: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Leave out images that are listed again with the same id and file name; refuse or report two images of one id.

    Args:
        images: all images of the dataset.
        rows: int64 [N], rows of `images` in the order of their ids.
        ids: int64 [N], the ids of these rows, sorted.
        where: the files, for the error.
        report: gets the findings "repeated_image" and, unless `refuse`, "same_image_id".
        refuse: raise an error for two images of one id, instead of reporting them.

    Returns:
        The rows and ids that stay, int64 [M]; and bool [M], whether an earlier row has the same id. Annotations belong
        to the earlier row.

    Raises:
        SynthgenError: two images with different file names have one id, and `refuse` is set.
    """
    again = np.append(False, np.diff(ids) == 0)
    if not again.any():
        return rows, ids, again
    place = np.arange(len(rows))
    first = np.maximum.accumulate(np.where(again, 0, place))
    later = np.flatnonzero(again)
    ours, theirs = images.file_name.take(rows[later]), images.file_name.take(rows[first[later]])
    differs = np.array([our != their for our, their in zip(ours, theirs, strict=True)], np.bool_)

    def spell(index: int) -> str:
        row = int(later[index])
        text = images.id_text.take(rows[row : row + 1])[0]
        return f"'{text}'" if text else str(int(ids[row]))

    conflicts, harmless = np.flatnonzero(differs).tolist(), np.flatnonzero(~differs).tolist()
    if conflicts and refuse:
        one = conflicts[0]
        more = f" (and {len(conflicts) - 1:,} more images have the id of another one)" if len(conflicts) > 1 else ""
        raise SynthgenError(
            f"{where}: two images have the id {spell(one)}, {theirs[one]} and {ours[one]}{more}, so their annotations "
            "cannot be told apart; give each image an id of its own in the file"
        )
    if conflicts:
        examples = tuple((ours[i], f"has the id {spell(i)}, as {theirs[i]}") for i in conflicts[:_MAX_EXAMPLES])
        report(SourceFinding("same_image_id", "images", len(conflicts), examples))
    if harmless:
        examples = tuple((ours[i], f"is listed again, id {spell(i)}") for i in harmless[:_MAX_EXAMPLES])
        report(SourceFinding("repeated_image", "images", len(harmless), examples))
    stays = ~again
    stays[later[differs]] = True
    return rows[stays], ids[stays], again[stays]
