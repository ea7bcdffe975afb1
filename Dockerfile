# Two targets:
#   docker build --target test -t synthgen:test .   the quick tests on a CPU: docker run --rm synthgen:test
#   docker build --target gpu  -t synthgen:gpu  .   for a GPU box or a Ray cluster:
#     docker run --rm --gpus all -v /mnt/synthgen:/mnt/synthgen synthgen:gpu masks --dataset objects365 --segmenter sam
# The dependencies lie in a layer of their own, which only another pyproject.toml makes anew.

FROM python:3.12-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    PATH=/venv/bin:$PATH
RUN python -m venv /venv \
    && useradd --create-home --uid 1000 synthgen \
    && mkdir /app \
    && chown synthgen /app
WORKDIR /app

# --- CPU ---
FROM base AS test
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make=4.3-4.1 git=1:2.39.* \
    && rm -rf /var/lib/apt/lists/*
# PyTorch without CUDA is a tenth of the size, and has an index of its own.
RUN pip install --index-url https://download.pytorch.org/whl/cpu "torch>=2.13" "torchvision>=0.28"
COPY pyproject.toml README.md LICENSE ./
COPY synthgen/__init__.py synthgen/
RUN pip install ".[dev]" && pip uninstall --yes synthgen
COPY --chown=synthgen . .
RUN pip install --no-deps --no-build-isolation --editable .
USER synthgen
CMD ["pytest", "-m", "not slow and not gpu"]

# --- GPU ---
# PyTorch's wheels bring CUDA themselves, and the container runtime the driver; the compiler is for `--compile`, wget for
# the probes of KubeRay, which also starts login shells: they read their PATH from /etc/profile.d.
FROM nvidia/cuda:12.8.1-base-ubuntu24.04 AS gpu
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
        python3-venv=3.12.* python3-dev=3.12.* gcc=4:13.* libc6-dev=2.39-* wget=1.21.* \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /venv \
    && echo "export PATH=/venv/bin:\$PATH" > /etc/profile.d/venv.sh \
    && usermod --login synthgen --home /home/synthgen --move-home ubuntu \
    && mkdir -p /app /mnt/synthgen \
    && chown synthgen /app /mnt/synthgen
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY synthgen/__init__.py synthgen/
RUN pip install . && pip uninstall --yes synthgen
COPY --chown=synthgen synthgen synthgen
COPY --chown=synthgen pipelines pipelines
RUN pip install --no-deps .
USER synthgen
# `synthgen ...` by default; `ray start ...` and `python -m pipelines.masks ...` on a cluster, which overrides this.
ENTRYPOINT ["synthgen"]
CMD ["--help"]
