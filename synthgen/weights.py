"""Downloads published weights once, verifies their SHA-256 and keeps them in the folder of weights."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen.errors import SynthgenError, escape_control_chars
from synthgen.progress import TerminalProgress
from synthgen.storage.atomic import atomic_write, remove_stale_files
from synthgen.storage.locks import file_lock

#: A download fails after this many seconds without a byte.
STALL_SECONDS = 60.0

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file as its authors published it.

    Attributes:
        url: its official address; the last part is its name here.
        size: in bytes.
        sha256: 64 hexadecimal digits.
    """

    url: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """Its name in the folder of weights."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class LocalWeights:
    """Weights of a plugin on this machine.

    Attributes:
        options: the options of the plugin that choose them, such as {"variant": "vit_h", "checkpoint": ""}.
        reason: where they are, as the end of a sentence: "sam_vit_h_4b8939.pth is in weights".
    """

    options: dict[str, str]
    reason: str


def weights_folder() -> Path:
    """The folder of weights: $SYNTHGEN_WEIGHTS, else ./weights."""
    return Path(os.environ.get("SYNTHGEN_WEIGHTS") or "weights").absolute()


def fetch_weights(published: PublishedFile) -> Path:
    """The path of a verified file in the folder of weights. It is downloaded if it is missing.

    A file that the user put there is verified as well.

    Args:
        published: address, size and digest of the file.

    Raises:
        SynthgenError: it cannot be had, or is not what was published.
    """
    path = weights_folder() / published.file_name
    if _read_cached_digest(path) == published.sha256:
        return path
    with _download_lock(path):
        if _read_cached_digest(path) != published.sha256:  # else another process was faster
            if path.exists():
                _verify(path, published)
            else:
                _download(published, path)
            _write_cached_digest(path, published.sha256)
    return path


def is_local(published: PublishedFile) -> bool:
    """Whether a file of the published size is in the folder of weights. `fetch_weights` verifies its content."""
    path = weights_folder() / published.file_name
    try:
        return path.is_file() and path.stat().st_size == published.size
    except OSError:  # a folder that may not be read
        return False


def cached_file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; read from the cache file beside it if that is valid.

    Args:
        path: file of weights; untrusted.

    Raises:
        SynthgenError: it cannot be read.
    """
    if known := _read_cached_digest(path):
        return known
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        with path.open("rb") as file, _progress_if_large(f"reading {path.name}", size) as advance:
            while piece := file.read(_CHUNK_BYTES):
                digest.update(piece)
                advance(len(piece))
    except OSError as why:
        raise SynthgenError(f"{path} cannot be read ({why.strerror}); name another file with --checkpoint") from None
    return digest.hexdigest()


def _verify(path: Path, published: PublishedFile) -> None:
    """Refuse a file that differs from the published one."""
    size, wrong = path.stat().st_size, ""
    if size != published.size:
        wrong = f"{size:,} bytes instead of {published.size:,}"
    elif cached_file_sha256(path) != published.sha256:
        wrong = "other content"
    if wrong:
        raise SynthgenError(
            f"{path} is not the file that was published ({wrong}); delete it, and it is downloaded anew from "
            f"{published.url}, or name a checkpoint of your own with --checkpoint"
        )


def _download(published: PublishedFile, path: Path) -> None:
    """Download and verify the file. A failed download leaves no file."""
    remove_stale_files(path.parent)
    digest, got, size = hashlib.sha256(), 0, published.size
    with atomic_write(path) as temporary:
        with _translate_network_errors(published):
            answer = _open_url(published.url)
        with answer, temporary.open("wb") as file:
            if (free := shutil.disk_usage(path.parent).free) < size:
                raise SynthgenError(
                    f"no space for {path}: it has {size:,} bytes, and {free:,} are free; make room, or set "
                    "$SYNTHGEN_WEIGHTS to another folder"
                )
            with _progress_if_large(f"downloading {published.file_name}", size) as advance:
                while got <= size:
                    with _translate_network_errors(published):
                        piece = answer.read(min(_CHUNK_BYTES, size + 1 - got))  # one more shows excess
                    if not piece:
                        break
                    got += len(piece)
                    digest.update(piece)
                    file.write(piece)
                    advance(len(piece))
        if got != size or digest.hexdigest() != published.sha256:
            wrong = f"more than {size:,} bytes" if got > size else f"{got:,} bytes instead of {size:,}"
            raise SynthgenError(
                f"what came from {published.url} is not what was published there "
                f"({wrong if got != size else 'other content'}) and was deleted; try again, or "
                f"{_manual_download_hint(published)}"
            )


@contextlib.contextmanager
def _translate_network_errors(published: PublishedFile) -> Iterator[None]:
    """Turn errors of networks and servers into a `SynthgenError`; `atomic_write` does this for the disk."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as why:  # ValueError: redirected to no address at all
        reason = why if isinstance(why, urllib.error.HTTPError) else getattr(why, "reason", why)
        cause = escape_control_chars(" ".join(str(reason).split())[:200]) or type(why).__name__
        raise SynthgenError(
            f"cannot download {published.file_name} ({cause}); {_manual_download_hint(published)}"
        ) from None


def _manual_download_hint(published: PublishedFile) -> str:
    return (
        f"download {published.url} where there is a network, and put it into {weights_folder()} as "
        f"{published.file_name}, "
        "or name the file with --checkpoint"
    )


class _SafeRedirectHandler(urllib.request.HTTPRedirectHandler):
    """Follows redirects to safe addresses only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_url_is_safe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open_url(url: str) -> Any:
    _check_url_is_safe(url)
    request = urllib.request.Request(url, headers={"User-Agent": "synthgen"})  # noqa: S310  # see _check_url_is_safe
    return urllib.request.build_opener(_SafeRedirectHandler).open(request, timeout=STALL_SECONDS)


def _check_url_is_safe(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and (parts.scheme, parts.hostname) != ("http", "127.0.0.1"):
        raise urllib.error.URLError(f"{parts.scheme}://{parts.hostname} is not a safe address")


@contextlib.contextmanager
def _download_lock(path: Path) -> Iterator[None]:
    """Lock a file against other processes, so that the workers of a node download it once."""
    with contextlib.ExitStack() as held:
        lock, remedy = path.with_name(f".{path.name}.lock"), "set $SYNTHGEN_WEIGHTS to another folder"
        try:
            held.enter_context(file_lock(lock, remedy=remedy))
        except (SynthgenError, OSError):  # OSError: locks of some network file systems
            if not os.access(path, os.R_OK):  # else a read-only shared folder: each process verifies the file itself
                raise
        yield


def _write_cached_digest(path: Path, digest: str) -> None:
    """Cache the digest for the next process. It is valid while the file's size and modification time stay."""
    stat = path.stat()
    with contextlib.suppress(OSError):  # in a read-only folder, each process reads the file
        _cached_digest_path(path).write_text(f"{digest} {stat.st_size} {stat.st_mtime_ns}\n")


def _read_cached_digest(path: Path) -> str | None:
    """The cached digest of a file, if it is valid."""
    try:
        digest, size, time = _cached_digest_path(path).read_text().split()
        stat = path.stat()
    except (OSError, ValueError):
        return None
    known = re.fullmatch(r"[0-9a-f]{64}", digest) and (size, time) == (str(stat.st_size), str(stat.st_mtime_ns))
    return digest if known else None


def _cached_digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


@contextlib.contextmanager
def _progress_if_large(description: str, size: int) -> Iterator[Callable[[int], None]]:
    """A progress bar for a large file; none for a small one."""
    if size < 200 * 2**20:
        yield lambda _: None
        return
    with TerminalProgress(description, size, "bytes") as bar:
        yield bar.advance
