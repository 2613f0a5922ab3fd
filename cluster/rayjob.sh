#!/usr/bin/env bash
# jobs/reason.py for a KubeRay job: bash cluster/rayjob.sh CONFIG [key=value ...]
#
# KubeRay starts a failed job again (backoffLimit), whatever its status. A run that ended with
# failed rows (3) or at its cap (4) is over. Starting it again would only pay for machines, and for
# run.max_hours once more. So both become status 0.
# A run directory may be refused (2) because its last driver is still alive, on a cluster that goes
# away. So that is tried again after RETRY_S seconds, and then counts.
stopped=
trap 'stopped=1' TERM # the run gets it too, and stores what it has: wait for that
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
