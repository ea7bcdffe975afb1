"""Published weights: downloaded once, complete and verified, or an error with the manual steps."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from synthgen import weights
from synthgen.errors import SynthgenError
from synthgen.weights import PublishedFile, cached_file_sha256, fetch_weights, is_local

CONTENT = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()

#: Where a redirect leads; None: to itself.
REDIRECTS = {
    "astray": "http://example.com/model.pth",
    "file": "file:///etc/passwd",
    "circle": None,
    "nowhere": "https://a..b/model.pth",
    "unclosed": "https://[bad/model.pth",
}

#: Answers that are hardly HTTP.
RAW = {
    "garbage": b"\0\1\2 nonsense\r\n\r\n",
    "steering": b"HTTP/1.1 404 \x1b[2J gone\r\n\r\n",
    "broken": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "negative": b"HTTP/1.1 200 OK\r\nContent-Length: -7\r\n\r\nabc",
}


class Server:
    """A server on this machine that answers as told: by path, what to send."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                how = self.path.split("/")[1]
                if how == "moved":
                    self.send_response(302)
                    self.send_header("Location", self.path.replace("/moved", "/good"))
                    self.end_headers()
                    return
                if how in REDIRECTS:
                    self.send_response(302)
                    self.send_header("Location", REDIRECTS[how] or self.path)
                    self.end_headers()
                    return
                if how in RAW:
                    self.wfile.write(RAW[how])
                    return
                if how == "missing":
                    self.send_error(404, "Not Found")
                    return
                body = {"short": CONTENT[:-1], "long": CONTENT + b"x", "other": CONTENT[::-1]}.get(how, CONTENT)
                self.send_response(200)
                if how != "endless":
                    self.send_header("Content-Length", str(len(CONTENT) if how == "cut" else len(body)))
                self.end_headers()
                try:
                    if how == "endless":
                        while True:
                            self.wfile.write(CONTENT)
                    if how in ("stalls", "slow"):
                        for start in range(0, len(body), len(body) // 4):
                            self.wfile.write(body[start : start + len(body) // 4])
                            self.wfile.flush()
                            time.sleep(30 if how == "stalls" else 0.5)
                    else:
                        self.wfile.write(body[:1000] if how == "cut" else body)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def published(self, how: str, size: int = len(CONTENT), sha256: str = DIGEST) -> PublishedFile:
        return PublishedFile(f"http://127.0.0.1:{self.http.server_port}/{how}/model.pth", size, sha256)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path / "weights"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "weights"


def lies_there(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir() if not path.name.endswith(".lock"))


def test_weights_are_downloaded_once(server, home):
    published = server.published("good")
    path = fetch_weights(published)
    assert (path, path.read_bytes()) == (home / "model.pth", CONTENT)
    assert fetch_weights(published) == path
    assert server.asked == ["/good/model.pth"]
    assert lies_there(home) == ["model.pth", "model.pth.sha256"]


def test_redirects_are_followed(server, home):
    assert fetch_weights(server.published("moved")).read_bytes() == CONTENT
    assert server.asked == ["/moved/model.pth", "/good/model.pth"]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (
            "missing",
            r"^cannot download model\.pth \(HTTP Error 404: Not Found\); download http://127\.0\.0\.1:\d+/missing/model\.pth",
        ),
        ("short", r"is not what was published there \(1,279,999 bytes instead of 1,280,000\) and was deleted"),
        ("long", r"is not what was published there \(more than 1,280,000 bytes\)"),
        ("endless", r"is not what was published there \(more than 1,280,000 bytes\)"),
        ("other", r"is not what was published there \(other content\)"),
        ("cut", r"is not what was published there \(1,000 bytes|cannot download model\.pth"),
        ("file", r"^cannot download model\.pth \(.*not allowed"),
        ("circle", r"^cannot download model\.pth \(.*infinite loop"),
        ("nowhere", r"^cannot download model\.pth \(.+\); download https?://"),
        ("unclosed", r"^cannot download model\.pth \(Invalid IPv6 URL\)"),
        ("garbage", r"^cannot download model\.pth \(\\x00\\x01\\x02 nonsense\)"),
        ("steering", r"^cannot download model\.pth \(HTTP Error 404: \\x1b\[2J gone\)"),
        ("broken", r"^cannot download model\.pth \(IncompleteRead"),
        ("negative", r"\(3 bytes instead of 1,280,000\)"),
        ("astray", r"^cannot download model\.pth \(http://example\.com is not a safe address\)"),
        ("stalls", r"^cannot download model\.pth \(.*timed out\)"),
    ],
)
def test_what_goes_wrong_is_reported_and_leaves_nothing(server, home, how, sentence, monkeypatch):
    monkeypatch.setattr(weights, "STALL_SECONDS", 0.5)
    with pytest.raises(SynthgenError, match=sentence) as told:
        fetch_weights(server.published(how))
    assert str(told.value).isprintable()
    assert str(told.value).endswith("or name the file with --checkpoint")
    assert lies_there(home) == []
    assert fetch_weights(server.published("good")).read_bytes() == CONTENT


class Broken:
    """An answer whose network goes away."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read(self, _):
        raise OSError(errno.EHOSTUNREACH, "No route to host")


def test_a_network_that_goes_away_is_reported(server, home, monkeypatch):
    monkeypatch.setattr(weights, "_open_url", lambda *_: Broken())
    with pytest.raises(SynthgenError, match=r"^cannot download model\.pth \(\[Errno 113\] No route to host\)"):
        fetch_weights(server.published("good"))
    assert lies_there(home) == []


def test_no_more_is_read_than_tells_that_it_is_too_much(server, home, monkeypatch):
    asked, opened = [], weights._open_url

    def watched(*arguments):
        answer = opened(*arguments)
        read = answer.read
        answer.read = lambda count: asked.append(count) or read(count)
        return answer

    monkeypatch.setattr(weights, "_open_url", watched)
    with pytest.raises(SynthgenError, match="more than"):
        fetch_weights(server.published("endless"))
    assert sum(asked) == len(CONTENT) + 1


def test_a_full_disk_is_reported_before_the_download(server, home, monkeypatch):
    free = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(SynthgenError, match=r"^no space for .*model\.pth: it has 1,280,000 bytes, and 1,000 are free"):
        fetch_weights(server.published("good"))
    assert lies_there(home) == []


def test_offline_the_sentence_says_how_to_do_it_by_hand(home):
    with pytest.raises(SynthgenError) as told:
        fetch_weights(PublishedFile("http://127.0.0.1:9/sam_vit_b.pth", 3, DIGEST))
    assert str(told.value).startswith("cannot download sam_vit_b.pth (")
    assert str(told.value).endswith(
        f"download http://127.0.0.1:9/sam_vit_b.pth where there is a network, and put it into {home} as sam_vit_b.pth, "
        "or name the file with --checkpoint"
    )


@pytest.mark.parametrize("url", ["http://example.com/x.pth", "ftp://example.com/x.pth", "file:///etc/passwd"])
def test_only_safe_addresses_are_asked(home, url):
    with pytest.raises(SynthgenError, match="is not a safe address"):
        fetch_weights(PublishedFile(url, 3, DIGEST))


def test_a_file_laid_there_by_hand_is_verify_once(server, home, monkeypatch):
    home.mkdir()
    (home / "model.pth").write_bytes(CONTENT)
    published = server.published("good")
    fetch_weights(published)
    monkeypatch.setattr(weights, "_verify", lambda *_: pytest.fail("read again"))
    fetch_weights(published)
    assert cached_file_sha256(home / "model.pth") == DIGEST
    assert server.asked == []


def test_a_folder_that_is_only_read_serves_what_it_has(server, home):
    """As on a cluster, where somebody laid the weights for all. (Root writes everywhere: folders stand in the way.)"""
    home.mkdir()
    (home / "model.pth").write_bytes(CONTENT)
    (home / ".model.pth.lock").mkdir()
    (home / "model.pth.sha256").mkdir()
    assert fetch_weights(server.published("good")) == home / "model.pth"
    (home / "model.pth").write_bytes(CONTENT[::-1])
    with pytest.raises(SynthgenError, match="other content"):
        fetch_weights(server.published("good"))
    assert server.asked == []


def test_a_folder_in_its_place_is_reported_before_the_download(server, home):
    (home / "model.pth").mkdir(parents=True)
    with pytest.raises(SynthgenError, match=r"model\.pth is not the file that was published"):
        fetch_weights(server.published("good"))
    assert server.asked == []


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[::-1]])
def test_another_file_of_that_name_is_reported_and_kept(server, home, content):
    home.mkdir()
    (home / "model.pth").write_bytes(content)
    with pytest.raises(SynthgenError, match=r"model\.pth is not the file that was published \(.*\); delete it"):
        fetch_weights(server.published("good"))
    assert (home / "model.pth").read_bytes() == content


def test_a_file_that_changed_is_not_known_any_more(server, home):
    path = fetch_weights(server.published("good"))
    path.write_bytes(CONTENT[::-1])
    assert cached_file_sha256(path) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    with pytest.raises(SynthgenError, match="other content"):
        fetch_weights(server.published("good"))
    stat = path.stat()
    for mark in (b"\xff\0 no mark", f"anything {stat.st_size} {stat.st_mtime_ns}".encode()):
        (home / "model.pth.sha256").write_bytes(mark)
        assert cached_file_sha256(path) == hashlib.sha256(CONTENT[::-1]).hexdigest()


def test_a_folder_that_cannot_be_made_is_reported(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path / "file" / "weights"))
    sentence = rf"^cannot write {tmp_path / 'file'} .*set \$SYNTHGEN_WEIGHTS to another folder"
    with pytest.raises(SynthgenError, match=sentence):
        fetch_weights(PublishedFile("https://example.com/x.pth", 3, DIGEST))


FETCH = """
import sys
from synthgen.weights import *
fetch_weights(PublishedFile(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
"""


def process(published: PublishedFile) -> subprocess.Popen[str]:
    words = [published.url, str(published.size), str(published.sha256)]
    return subprocess.Popen([sys.executable, "-c", FETCH, *words], stderr=subprocess.PIPE, text=True)


def test_processes_of_a_machine_download_once(server, home):
    others = [process(server.published("slow")) for _ in range(3)]
    told = [other.communicate(timeout=60)[1] for other in others]
    assert [other.returncode for other in others] == [0, 0, 0], told
    assert server.asked == ["/slow/model.pth"]
    assert f"another process holds {home / '.model.pth.lock'}: waiting for it\n" in "".join(told)


def test_a_killed_download_leaves_no_file_under_the_final_name(server, home):
    one = process(server.published("slow"))
    while not server.asked:
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(one.pid, signal.SIGKILL)
    one.wait()
    (half,) = lies_there(home)
    assert half.endswith(".tmp")
    assert fetch_weights(server.published("good")).read_bytes() == CONTENT
    assert lies_there(home) == ["model.pth", "model.pth.sha256"]


def test_a_file_of_the_published_size_is_local(tmp_path, monkeypatch):
    """Nothing is read or downloaded: `fetch_weights` verifies the content when it is used."""
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path / "weights"))
    published = PublishedFile("https://example.org/model.pth", len(CONTENT), DIGEST)
    path = tmp_path / "weights/model.pth"
    assert not is_local(published)
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1])
    assert not is_local(published)
    path.write_bytes(CONTENT)
    assert is_local(published)
    path.unlink()
    path.mkdir()
    assert not is_local(published)
    path.rmdir()
    path.symlink_to(path)
    assert not is_local(published)
