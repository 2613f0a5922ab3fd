#!/usr/bin/env bash
# jobs/reason.py for a KubeRay job: bash cluster/rayjob.sh CONFIG [key=value ...]
#
# KubeRay starts a job that fails again (backoffLimit), whatever its status. A run that ended with failed rows (3) or at its
# cap (4) has ended: started again it would only pay for machines, and for run.max_hours once more. A run directory that is
# refused (2) may still have its last driver, on a cluster that goes away: that is given RETRY_S seconds, and then counts.
stopped=
trap 'stopped=1' TERM # it reaches the run too, which stores what it has: wait for that
python jobs/reason.py "$@"
status=$?
if [[ $status == 2 && -z $stopped ]]; then
    sleep "${RETRY_S:-90}" &
    wait $!
    [[ -n $stopped ]] && exit 143
    python jobs/reason.py "$@"
    status=$?
fi
[[ $status == 3 || $status == 4 ]] && status=0
exit "$status"
