"""Writes a software bill of materials, CycloneDX 1.5, from the lock files: `make sbom`.

A component is a locked version of a package, with the hashes of its files. Licences are those that installed packages
state. Same lock files and packages, same bytes: the document holds no time, and its serial number follows from it.
"""

from __future__ import annotations

import json
import sys
import uuid
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_NAME = "synthgen-masks"

#: Lock files of what users install; the others hold the tools of developers.
_REQUIRED = frozenset({"core", "torch"})
_INSTALLED = _REQUIRED | {"train-ray", "no-deps"}


def build_sbom(folder: Path) -> dict[str, Any]:
    """The document for the lock files in a folder.

    Raises:
        ValueError: a locked package has no exact version or no hash.
    """
    found: dict[str, dict[str, Any]] = {}
    for lock in sorted(folder.glob("*.txt")):
        for requirement, hashes in _entries(lock):
            component = found.setdefault(_purl(requirement), _component(requirement))
            known = {one["content"] for one in component["hashes"]}
            component["hashes"] += [{"alg": "SHA-256", "content": one} for one in hashes if one not in known]
            component["properties"].append({"name": "synthgen:lock", "value": lock.stem})
            if requirement.marker is not None:
                component["properties"].append({"name": "synthgen:marker", "value": str(requirement.marker)})
    components = [found[purl] for purl in sorted(found)]
    for component in components:
        component["hashes"].sort(key=lambda one: one["content"])
        component["properties"] = [
            dict(pair) for pair in sorted({tuple(one.items()) for one in component["properties"]})
        ]
        locks = {one["value"] for one in component["properties"] if one["name"] == "synthgen:lock"}
        component["scope"] = "required" if locks & _REQUIRED else "optional" if locks & _INSTALLED else "excluded"
    own = version(_NAME)
    root = {
        "type": "application",
        "bom-ref": f"pkg:pypi/{_NAME}@{own}",
        "name": _NAME,
        "version": own,
        "purl": f"pkg:pypi/{_NAME}@{own}",
        "licenses": [{"expression": "Apache-2.0"}],
    }
    needed = [one["bom-ref"] for one in components if one["scope"] != "excluded"]
    content = {
        "metadata": {"component": root},
        "components": components,
        "dependencies": [
            {"ref": root["bom-ref"], "dependsOn": needed},
            *({"ref": one["bom-ref"]} for one in components),
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        **content,
    }


def _entries(lock: Path) -> list[tuple[Requirement, list[str]]]:
    """Each requirement of a lock file with the SHA-256 of its files, in hexadecimal."""
    found = []
    for line in lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words, *hashes = line.split("--hash=sha256:")
        requirement = Requirement(words.strip())
        pins = [one.operator for one in requirement.specifier]
        if pins != ["=="] or not hashes:
            raise ValueError(f"{lock.name} locks {requirement.name} without a version or a hash; run: make lock")
        found.append((requirement, sorted(one.strip() for one in hashes)))
    return found


def _component(requirement: Requirement) -> dict[str, Any]:
    (pin,) = requirement.specifier
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _purl(requirement),
        "name": canonicalize_name(requirement.name),
        "version": pin.version,
        "purl": _purl(requirement),
        "hashes": [],
        "properties": [],
    }
    if licenses := _licenses(requirement.name, pin.version):
        component["licenses"] = licenses
    return component


def _purl(requirement: Requirement) -> str:
    (pin,) = requirement.specifier
    return f"pkg:pypi/{canonicalize_name(requirement.name)}@{pin.version.replace('+', '%2B')}"


def _licenses(name: str, locked: str) -> list[dict[str, Any]]:
    """What the installed package states, if it is the locked version: an SPDX expression, else names."""
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return []
    if about["Version"] != locked:
        return []
    if expression := about["License-Expression"]:
        return [{"expression": expression}]
    names = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or []
        if line.startswith("License ::") and not line.endswith("OSI Approved")
    ]
    lines = (about["License"] or "").strip().splitlines()
    names = names or [line for line in lines[:1] if len(line) < 100 and len(lines) == 1]
    return [{"license": {"name": one}} for one in names]


if __name__ == "__main__":
    out = Path(sys.argv[1])
    try:
        document = build_sbom(Path(__file__).parent)
    except ValueError as why:
        sys.exit(str(why))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{out}: {len(document['components'])} packages\n")
