#!/usr/bin/env bash
# Looks for known vulnerabilities of all locked packages: `make audit`. Needs uv and a network.
# pip-audit is not locked: it is a tool of developers, and its newest release knows the current services.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
uv=${UV:-uv}
if ! "$uv" tool run --quiet pip-audit --version >/dev/null 2>&1; then
  echo "pip-audit cannot be fetched from the package index; run make audit where there is a network" >&2
  exit 1
fi
locks=()
for lock in *.txt; do locks+=(--requirement "$lock"); done
# The files are complete and pinned: nothing is resolved, installed or built.
exec "$uv" tool run --quiet pip-audit --strict --require-hashes --disable-pip --progress-spinner off "${locks[@]}"
