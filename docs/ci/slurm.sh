#!/usr/bin/env bash
# An array of Slurm measures, one more job judges: its exit code is this command's. Copy docs/ci/slurm*, judge.sh to ci/ and
# run it in the checkout on a file system that all nodes see: bash ci/slurm.sh SHARDS
#
# A shard whose node was lost is submitted again by itself, with the same RUNS: the first complete attempt counts.
#   SHARDS=4 RUNS=… sbatch --array=3 ci/slurm-shard.sbatch
set -euo pipefail
SHARDS=${1:-4}
RUNS=$PWD/trtgate-runs/$(git rev-parse --short HEAD)-$(date +%Y%m%dT%H%M%S)
export SHARDS RUNS # sbatch hands on what is exported
mkdir -p "$RUNS"

array=$(sbatch --parsable --array="1-$SHARDS" ci/slurm-shard.sbatch)
# afterany: a shard that failed, or is missing, is for the merge to tell.
sbatch --wait --dependency="afterany:${array%%;*}" ci/slurm-judge.sbatch
