#!/usr/bin/env bash
# Shards as an indexed Job of Kubernetes, then a Job that judges: its exit code is this command's. Copy docs/ci/kubernetes*,
# judge.sh to ci/, change what is in CAPITALS in the manifests, and run: bash ci/kubernetes.sh
# Needs kubectl, envsubst, and the claim trtgate-runs (ReadWriteMany), where pods leave their run files.
set -euo pipefail
COMMIT=$(git rev-parse HEAD)
RUN=${COMMIT:0:12}-$(date +%s)
export COMMIT RUN

ended() { # whether a Job came to Complete or Failed
    kubectl get job "$1" -o jsonpath='{range .status.conditions[?(@.status=="True")]}{.type}{"\n"}{end}' |
        grep -qxE 'Complete|Failed'
}
apply_and_wait() {
    envsubst '$RUN $COMMIT' <"ci/kubernetes-$1.yml" | kubectl apply -f -
    until ended "trtgate-$1-$RUN"; do sleep 10; done
}

apply_and_wait shards # a shard that did not come to its end is missing: the merge says so
apply_and_wait judge
kubectl logs "job/trtgate-judge-$RUN"
code=$(kubectl get pods -l "batch.kubernetes.io/job-name=trtgate-judge-$RUN" \
    -o jsonpath='{.items[0].status.containerStatuses[0].state.terminated.exitCode}')
exit "${code:-1}"
