#!/usr/bin/env bash
# `synthgen masks` on a Slurm cluster: a Ray head on the first node, a Ray worker on each other, one job over all of them.
#
#   sbatch pipelines/slurm.sh --dataset objects365 --segmenter sam --precision bf16
#
# Yours to fill in: the lines with #SBATCH, how the environment is entered, and the folders, which all nodes must see.
# After a time limit, submit the same line again: what is committed stays.
# For captions write `synthgen captions --engine ray` into the last line, for a training `synthgen train --engine ray`;
# then submit it with the options of that command.
#
#SBATCH --job-name=synthgen
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --output=synthgen-%j.log
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?start this with sbatch, from the folder of the project}"
# shellcheck disable=SC1091  # made by `make install`
source .venv/bin/activate
export SYNTHGEN_DATA="${SYNTHGEN_DATA:-$PWD/data}"
export SYNTHGEN_STORE="${SYNTHGEN_STORE:-$PWD/shards}"
export SYNTHGEN_WEIGHTS="${SYNTHGEN_WEIGHTS:-$PWD/weights}"
export RAY_USAGE_STATS_ENABLED=0
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0  # once the job is over, nothing is waited for

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# As Ray sees it: `hostname` may know another address, or the loopback's.
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
  python -c 'from ray.util import get_node_ip_address; print(get_node_ip_address())')
# Of this job alone, should two share a node; above Ray's own ports, below those that the system hands out.
port=$((20000 + SLURM_JOB_ID % 10000))
export RAY_ADDRESS="$head_ip:$port"
# Who reaches the port could run anything as you: only this job knows the secret.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

# Each `srun` lives as long as its node of the cluster; all end with this script.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
  ray start --head --node-ip-address="$head_ip" --port="$port" --include-dashboard=false --block &
until ray status --address "$RAY_ADDRESS" &>/dev/null; do
  kill -0 $! 2>/dev/null || { echo "no Ray head on ${nodes[0]}; what it said stands above" >&2; exit 1; }
  sleep 2
done
if ((${#nodes[@]} > 1)); then
  others=$(IFS=,; echo "${nodes[*]:1}")
  srun --nodes=$((${#nodes[@]} - 1)) --ntasks-per-node=1 --nodelist="$others" \
    ray start --address "$RAY_ADDRESS" --block &
fi

synthgen masks --engine ray "$@"
