#!/usr/bin/env bash
# Judges the run files of all shards and, if the merge suspects something, confirms it here: the second stage needs the GPU.
# Runs in a checkout of the shards' commit; its exit code is the verdict. Copy to ci/judge.sh.
#
#   judge.sh FOLDER PYTEST_OPTION...    FOLDER holds the shards' run files; options as the shards had them, without --trtgate-shard
set -euo pipefail
runs=$1
shift

judged() {
    trtgate merge "$runs"/*.json --output merged.json --report report.json --junit-xml junit.xml
}

status=0
judged || status=$?
if [ "$status" != 6 ]; then # 0: nothing got slower. 1: something did, is wrong or missing. 4: nothing was judged
    exit "$status"
fi
pytest "$@" --trtgate-confirm=merged.json || echo "the confirmation ended with $?: the merge says what that means" >&2
cp .trtgate/runs/*-confirmation-*.json "$runs" || true
judged # 6 again if the confirmation did not come to its end
