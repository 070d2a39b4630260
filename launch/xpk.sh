#!/usr/bin/env bash
# For those who have a GKE cluster made with xpk: a command on one of its slices.
#
#   launch/xpk.sh CLUSTER NAME TPU COMMAND...
#   launch/xpk.sh pods ppo v5litepod-64 python -m train.ppo --distributed=auto \
#       --config=configs/ppo.py:prm800k --workdir=gs://BUCKET/ppo
#
# Run it from the repository's root: xpk lays this folder over a Python image. Zone and
# project are gcloud's own. A run that ends with an error, preemptions included, is
# started again up to 20 times and continues from its --workdir.
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: launch/xpk.sh CLUSTER NAME TPU COMMAND..." >&2
    exit 2
fi
cluster=$1 name=$2 tpu=$3
shift 3
if ! [[ " $* " =~ --workdir[=\ ]gs:// ]]; then
    echo "launch/xpk.sh: expected --workdir=gs://...: a pod's disk goes with it" >&2
    exit 2
fi
# The environment is made from requirements.txt and requirements-tpu.txt in each pod; an
# image of your own that has it (SALIGN_IMAGE, with ~/salign/venv) saves the minutes.
exec xpk workload create --cluster="$cluster" --workload="$name" --tpu-type="$tpu" \
    --num-slices=1 --max-restarts=20 --script-dir=. \
    --base-docker-image="${SALIGN_IMAGE:-python:3.12}" \
    --command="bash launch/worker.sh install && bash launch/worker.sh exec$(printf ' %q' "$@")"
