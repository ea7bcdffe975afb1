# Two targets:
#   docker build --target test -t synthgen:test .   the quick tests on a CPU: docker run --rm synthgen:test
#   docker build --target gpu  -t synthgen:gpu  .   for a GPU box or a Ray cluster:
#     docker run --rm --gpus all -v /mnt/synthgen:/mnt/synthgen synthgen:gpu masks --dataset objects365 --segmenter sam
#   A training: what a manifest excludes are lists in its own folder, and only the mounted folder can be written (by uid
#   1000). So copy the manifests there, and make all their lists there, as manifests/exclude/README says. human_only.yaml
#   is for eight GPUs; for one, write accumulation_steps: 8 into its schedule. Several GPUs need shared memory for NCCL, of
#   which Docker gives 64 MiB: --shm-size 16g.
#     docker run --rm -v /mnt/synthgen:/mnt/synthgen synthgen:gpu manifests copy /mnt/synthgen/manifests
#     docker run --rm -v /mnt/synthgen:/mnt/synthgen synthgen:gpu exclude coco/val2017/human coco_panoptic/val2017/human \
#       --out /mnt/synthgen/manifests/exclude/coco_val2017.txt
#     docker run --rm --gpus all -v /mnt/synthgen:/mnt/synthgen synthgen:gpu \
#       train --manifest /mnt/synthgen/manifests/human_only.yaml --out /mnt/synthgen/runs/human_only
#   On eight GPUs: --entrypoint torchrun before the image, and --nproc-per-node 8 -m synthgen before train.
# The bases are exact versions; `make image-digests` adds their digests, where a registry can be reached.
# The dependencies lie in a layer of their own, which only other lock files make anew. The users are numbers, as Kubernetes
# cannot see that a name is not root's.

# --- CPU ---
FROM python:3.12.13-slim-bookworm AS test
# PyTorch without CUDA is a tenth of the size. It has an index of its own, where it is named 2.x+cpu.
ARG TORCH="torch==2.14.1+cpu torchvision==0.29.1+cpu"
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    RAY_USAGE_STATS_ENABLED=0
RUN useradd --create-home --uid 1000 synthgen \
    && mkdir /app \
    && chown synthgen /app
WORKDIR /app
COPY requirements ./requirements
RUN pip install --no-deps --index-url "$TORCH_INDEX" $TORCH \
    && pip install --require-hashes --no-deps -r requirements/dev.txt -r requirements/no-deps.txt
COPY --chown=synthgen . .
RUN pip install --no-deps --no-build-isolation --editable .
USER 1000
CMD ["pytest", "-m", "not slow and not gpu"]

# --- the wheel, which holds manifests and cluster files as well ---
FROM python:3.12.13-slim-bookworm AS wheel
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements ./requirements
RUN pip install --require-hashes --no-deps -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY manifests ./manifests
COPY pipelines ./pipelines
COPY synthgen ./synthgen
RUN python -m hatchling build -t wheel
USER 1000

# --- GPU ---
# PyTorch's wheels bring CUDA 13 themselves, and the container runtime the driver; this base refuses a driver that is too
# old for it. The compiler is for `--compile`, wget for the probes of KubeRay, which also starts login shells: they read
# their PATH from /etc/profile.d.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS gpu
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    SYNTHGEN_DATA=/mnt/synthgen/data \
    SYNTHGEN_STORE=/mnt/synthgen/shards \
    SYNTHGEN_WEIGHTS=/mnt/synthgen/weights \
    PATH=/venv/bin:$PATH
# The base has a user of uid 1000, which is the one that volumes and clusters like best: it is renamed.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3-venv=3.12.* python3-dev=3.12.* gcc=4:13.* libc6-dev=2.39-* wget=1.21.* ca-certificates=20* \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /venv \
    && echo "export PATH=/venv/bin:\$PATH" > /etc/profile.d/venv.sh \
    && usermod --login synthgen --home /home/synthgen --move-home ubuntu \
    && mkdir /mnt/synthgen \
    && chown synthgen /mnt/synthgen
COPY requirements /requirements
RUN pip install --require-hashes --no-deps -r /requirements/torch.txt -r /requirements/train-ray.txt -r /requirements/no-deps.txt
COPY --from=wheel /src/dist /wheel
RUN pip install --no-deps /wheel/*.whl
USER 1000
WORKDIR /mnt/synthgen
# `synthgen ...` by default; a cluster overrides it by `ray start ...` and `synthgen masks --engine ray ...`.
ENTRYPOINT ["synthgen"]
CMD ["--help"]
