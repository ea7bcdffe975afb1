"""Pins the base images of the Dockerfile by digest: `make image-digests`. Standard library only.

Every digest is read from the image's registry, by its HTTP API, and compared with the SHA-256 of the manifest itself.
If one cannot be read, nothing is changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

#: A base that is an image of a registry, and no earlier stage: "FROM python:3.12.13-slim@sha256:... AS test".
_FROM = re.compile(r"^(FROM )(\S+?:[\w.-]+)(@sha256:[0-9a-f]{64})?( AS \S+)$", re.MULTILINE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MANIFEST_KINDS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_TIMEOUT_SECONDS = 20
_MAX_BYTES = 2**22


class DigestError(Exception):
    """Why a digest cannot be read: one sentence."""


def read_digest(image: str) -> str:
    """The digest of an image ("python:3.12.13-slim") in its registry, for all its platforms: "sha256:...".

    Raises:
        DigestError: the registry cannot be reached, does not have the image, or contradicts itself.
    """
    name, _, tag = image.rpartition(":")
    host, _, path = name.partition("/")
    if not path or not ({".", ":"} & set(host) or host == "localhost"):  # Docker Hub, as Docker understands it
        host, path = "registry-1.docker.io", name if "/" in name else f"library/{name}"
    scheme = "http" if host.partition(":")[0] in ("localhost", "127.0.0.1") else "https"
    request = urllib.request.Request(  # noqa: S310 - http and https only
        f"{scheme}://{host}/v2/{path}/manifests/{tag}", headers={"Accept": ", ".join(_MANIFEST_KINDS)}
    )
    try:
        try:
            stated, manifest = _fetch(request)
        except urllib.error.HTTPError as why:
            if why.code != 401:
                raise
            request.add_header("Authorization", f"Bearer {_fetch_token(why.headers.get('WWW-Authenticate', ''))}")
            stated, manifest = _fetch(request)
    except urllib.error.HTTPError as why:
        raise DigestError(f"{host} does not give {image} (HTTP {why.code}); check its name and tag") from None
    except (OSError, ValueError, KeyError) as why:
        reason = getattr(why, "reason", None) or why
        raise DigestError(f"{host} cannot be read for {image} ({reason}); run it where there is a network") from None
    found = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    if stated not in ("", found) or not _DIGEST.fullmatch(found):
        raise DigestError(f"{host} says {stated[:80]!r} of {image}, and its manifest is {found}; do not use it")
    return found


def pin_digests(dockerfile: Path) -> list[str]:
    """Write the digests of all base images into a Dockerfile; returns the images as written.

    Raises:
        DigestError: there are none, or a digest cannot be read; the file is as it was.
    """
    text = dockerfile.read_text(encoding="utf-8")
    digests = {image: read_digest(image) for image in sorted({match[2] for match in _FROM.finditer(text)})}
    if not digests:
        raise DigestError(f"{dockerfile} names no base image with a tag; write FROM NAME:TAG AS STAGE")
    temporary = dockerfile.with_name(f".{dockerfile.name}.tmp")
    temporary.write_text(_FROM.sub(lambda m: f"{m[1]}{m[2]}@{digests[m[2]]}{m[4]}", text), encoding="utf-8")
    os.replace(temporary, dockerfile)
    return [f"{image}@{digest}" for image, digest in digests.items()]


def _fetch(request: urllib.request.Request) -> tuple[str, bytes]:
    """The digest that the registry states, "" if it states none, and the manifest."""
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
        manifest = answer.read(_MAX_BYTES)
        if not isinstance(json.loads(manifest), dict):
            raise ValueError("no manifest")
        return answer.headers.get("Docker-Content-Digest") or "", manifest


def _fetch_token(challenge: str) -> str:
    """A token for anonymous reading, from the place that the registry's challenge names."""
    facts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = facts.pop("realm")
    if not realm.startswith(("https://", "http://127.0.0.1:")):
        raise ValueError("its tokens come from no https address")
    query = urllib.parse.urlencode({key: facts[key] for key in ("service", "scope") if key in facts})
    with urllib.request.urlopen(f"{realm}?{query}", timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
        content = json.loads(answer.read(_MAX_BYTES))
    return str(content.get("token") or content["access_token"])


if __name__ == "__main__":
    try:
        for line in pin_digests(Path(sys.argv[1])):
            sys.stdout.write(f"{line}\n")
    except DigestError as error:
        sys.exit(str(error))
