"""Base images by digest, a bill of materials, an audit: what is not known is not written, and said in one sentence."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
MANIFEST = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


def load(name: str) -> ModuleType:
    """A script of requirements/ as a module."""
    spec = importlib.util.spec_from_file_location(name, REQUIREMENTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- digests of base images ------------------------------------------------------------------------------------------


class Registry:
    """A registry on this machine, with one image and a token for reading it.

    Attributes:
        stated: the digest in its header; asked: the paths that were requested.
    """

    def __init__(self) -> None:
        self.stated, self.asked = DIGEST, []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                headers, content, code = {}, b"{}", 404
                if self.path.startswith("/token?"):
                    code, content = 200, json.dumps({"token": "secret"}).encode()
                elif self.path == "/v2/library/base/manifests/1.2.3":
                    code, content = 200, MANIFEST
                    headers = {"Docker-Content-Digest": registry.stated}
                    if self.headers["Authorization"] != "Bearer secret":
                        realm = f"http://127.0.0.1:{registry.port}/token"
                        code, content = 401, b"{}"
                        scope = "repository:library/base:pull"
                        headers = {"WWW-Authenticate": f'Bearer realm="{realm}",service="here",scope="{scope}"'}
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *words: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def dockerfile(self, path: Path, name: str = "library/base:1.2.3") -> Path:
        image = f"127.0.0.1:{self.port}/{name}"
        path.write_text(f"# a comment\nFROM {image} AS one\nRUN true\n\nFROM {image} AS two\nCOPY --from=one /a /b\n")
        return path


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.server.shutdown()
    made.server.server_close()


def run_script(dockerfile: Path) -> tuple[int, str]:
    command = [sys.executable, str(REQUIREMENTS / "image_digests.py"), str(dockerfile)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_digests_are_read_from_the_registry_and_written_to_every_stage(registry: Registry, tmp_path: Path) -> None:
    path = registry.dockerfile(tmp_path / "Dockerfile")
    before = path.read_text()
    code, said = run_script(path)
    image = f"127.0.0.1:{registry.port}/library/base:1.2.3"
    assert (code, said) == (0, f"{image}@{DIGEST}\n")
    assert path.read_text() == before.replace(image, f"{image}@{DIGEST}")
    assert registry.asked[1] == "/token?service=here&scope=repository%3Alibrary%2Fbase%3Apull"
    pinned = path.read_text()
    assert run_script(path)[0] == 0 and path.read_text() == pinned
    assert [one.name for one in tmp_path.iterdir()] == ["Dockerfile"]


@pytest.mark.parametrize("fault", ["no network", "no such image", "another digest", "no digest", "no base"])
def test_what_was_not_read_is_not_written(registry: Registry, tmp_path: Path, fault: str) -> None:
    path = registry.dockerfile(
        tmp_path / "Dockerfile", "library/base:9" if fault == "no such image" else "library/base:1.2.3"
    )
    if fault == "no network":
        registry.server.shutdown()
        registry.server.server_close()
    registry.stated = {"another digest": "sha256:" + "0" * 64, "no digest": "latest"}.get(fault, DIGEST)
    if fault == "no base":
        path.write_text("FROM scratch\n")
    before = path.read_text()
    code, said = run_script(path)
    assert code == 1 and len(said.splitlines()) == 1 and "Traceback" not in said, said
    assert path.read_text() == before
    assert [one.name for one in tmp_path.iterdir()] == ["Dockerfile"]


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("python:3.12.1-slim", "https://registry-1.docker.io/v2/library/python/manifests/3.12.1-slim"),
        ("nvidia/cuda:13.0.1-base", "https://registry-1.docker.io/v2/nvidia/cuda/manifests/13.0.1-base"),
        ("ghcr.io/a/b/c:1.2.3", "https://ghcr.io/v2/a/b/c/manifests/1.2.3"),
        ("localhost:5000/x:1", "http://localhost:5000/v2/x/manifests/1"),
    ],
)
def test_an_image_is_looked_for_where_docker_would(monkeypatch: pytest.MonkeyPatch, image: str, url: str) -> None:
    module = load("image_digests")
    asked = []

    def fetch(request: Any) -> tuple[str, bytes]:
        asked.append(request.full_url)
        return "", MANIFEST

    monkeypatch.setattr(module, "_fetch", fetch)
    assert module.read_digest(image) == DIGEST
    assert asked == [url]


def test_the_script_finds_the_bases_of_our_dockerfile() -> None:
    text = (ROOT / "Dockerfile").read_text()
    found = [match[2] for match in load("image_digests")._FROM.finditer(text)]
    assert len(found) == len(re.findall("^FROM ", text, re.M)) == 3
    assert len(set(found)) == 2


# --- bill of materials -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("sbom") / "dist" / "sbom.cdx.json"
    texts = set()
    for _ in range(2):
        command = [sys.executable, str(REQUIREMENTS / "sbom.py"), str(out)]
        subprocess.run(command, check=True, capture_output=True, cwd=out.parents[1])
        texts.add(out.read_text())
    (text,) = texts
    content: dict[str, Any] = json.loads(text)
    return content


def locked() -> dict[tuple[str, str], set[str]]:
    """(name, version) of every line of every lock file -> its hashes."""
    found: dict[tuple[str, str], set[str]] = {}
    for lock in REQUIREMENTS.glob("*.txt"):
        for line in lock.read_text().replace("\\\n", " ").splitlines():
            name, version = re.match(r"([\w.-]+)==([\w.+!]+)", line).groups()  # type: ignore[union-attr]
            found.setdefault((canonicalize_name(name), version), set()).update(
                re.findall("sha256:([0-9a-f]{64})", line)
            )
    assert len(found) > 100 and all(found.values())
    return found


def test_the_bill_lists_every_locked_package_with_its_hashes(bill: dict[str, Any]) -> None:
    listed = {
        (one["name"], one["version"]): {digest["content"] for digest in one["hashes"] if digest["alg"] == "SHA-256"}
        for one in bill["components"]
    }
    assert listed == locked()
    assert len(listed) == len(bill["components"])


def test_the_bill_has_the_form_of_cyclonedx(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.5", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    parts = [bill["metadata"]["component"], *bill["components"]]
    refs = [one["bom-ref"] for one in parts]
    assert len(set(refs)) == len(refs)
    for one in parts:
        assert one["type"] in ("application", "library")
        assert one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}"
        Version(one["version"])
        for stated in one.get("licenses", ()):
            assert stated.keys() == {"expression"} or stated["license"]["name"]
    assert {one["ref"] for one in bill["dependencies"]} == set(refs)
    assert all(set(one.get("dependsOn", ())) <= set(refs) for one in bill["dependencies"])
    assert {one["scope"] for one in bill["components"]} == {"required", "optional", "excluded"}


def test_the_bill_states_licences_of_installed_packages(bill: dict[str, Any]) -> None:
    """Of those that are installed in the locked version: another version may have another licence."""
    known = {one["name"] for one in bill["components"] if "licenses" in one}
    locked = {one["name"] for one in bill["components"] if installed_version(one["name"]) == one["version"]}
    assert {"torch", "numpy", "pyarrow", "ray"} & locked <= known
    assert len(known) > len(locked) / 2


def installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@pytest.mark.parametrize("line", ["numpy==2.0", "numpy>=2.0 \\\n    --hash=sha256:" + "0" * 64])
def test_a_lock_without_a_hash_or_a_version_makes_no_bill(tmp_path: Path, line: str) -> None:
    (tmp_path / "core.txt").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"core\.txt locks numpy without a version or a hash; run: make lock"):
        load("sbom").build_sbom(tmp_path)


# --- audit -----------------------------------------------------------------------------------------------------------


def fake_uv(folder: Path, body: str) -> Path:
    path = folder / "uv"
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def audit(tmp_path: Path) -> Callable[[str], tuple[int, str, str]]:
    """The audit with another uv -> exit code, what it printed, the arguments of the audit itself."""

    def run(body: str) -> tuple[int, str, str]:
        seen = tmp_path / "arguments"
        uv = fake_uv(tmp_path, f'echo "$@" > {seen}; {body}')
        done = subprocess.run(
            [str(REQUIREMENTS / "audit.sh")], env={**os.environ, "UV": str(uv)}, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr, seen.read_text()

    return run


def test_the_audit_reads_every_lock_file(audit: Callable[[str], tuple[int, str, str]]) -> None:
    code, _, arguments = audit("exit 0")
    assert code == 0
    words = arguments.split()
    assert {"pip-audit", "--strict", "--require-hashes"} <= set(words)
    named = {words[i + 1] for i, word in enumerate(words) if word == "--requirement"}
    assert named == {lock.name for lock in REQUIREMENTS.glob("*.txt")}


def test_an_audit_without_a_network_is_one_sentence(audit: Callable[[str], tuple[int, str, str]]) -> None:
    code, said, _ = audit("echo 'error: dns' >&2; exit 2")
    assert (code, said) == (
        1,
        "pip-audit cannot be fetched from the package index; run make audit where there is a network\n",
    )


def test_the_audit_fails_with_the_tool(audit: Callable[[str], tuple[int, str, str]]) -> None:
    code, said, _ = audit('case "$*" in *--version*) exit 0;; *) echo "1 vulnerability"; exit 1;; esac')
    assert (code, said) == (1, "1 vulnerability\n")


@pytest.mark.parametrize("target", ["audit", "sbom", "image-digests"])
def test_make_knows_the_targets(target: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^  make {target} ", said, re.M) or re.search(rf"^make {target} ", said.strip(), re.M), said
