#!/usr/bin/env bash
# Renew the lock files: `make lock`. Needs uv. Every file names versions and hashes, and no package index.
#   torch.txt     torch, torchvision and what they need on a CPU or with CUDA
#   core.txt      what `pip install synthgen-masks` needs, without torch.txt's CUDA packages
#   train-ray.txt the same with the extras train and ray
#   dev.txt       all of it, with the tests' tools and the build backend
#   build.txt     the build backend alone
#   no-deps.txt   packages that only carry weights
# All files agree: dev.txt is resolved first, and the smaller files take their versions from it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
uv=${UV:-uv}
lock() {
  "$uv" pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header --no-annotate --no-config --upgrade \
    "$@"
}
lock --output-file torch.txt torch.in
cuda=(torch torchvision)
while read -r name; do cuda+=("$name"); done < <(sed -nE 's/^((nvidia|cuda|triton)[a-z0-9-]*)==.*/\1/p' torch.txt)
skip=()
for name in "${cuda[@]}"; do skip+=(--no-emit-package "$name"); done
lock "${skip[@]}" --constraint torch.txt --extra dev --output-file dev.txt ../pyproject.toml
lock "${skip[@]}" --constraint torch.txt --constraint dev.txt --extra train --extra ray --output-file train-ray.txt \
  ../pyproject.toml
lock "${skip[@]}" --constraint torch.txt --constraint dev.txt --output-file core.txt ../pyproject.toml
lock --constraint dev.txt --output-file build.txt build.in
lock --no-deps --output-file no-deps.txt no-deps.in
