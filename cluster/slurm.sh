#!/usr/bin/env bash
# One run on a Slurm allocation: sbatch cluster/slurm.sh CONFIG [key=value ...]
#
# Submit it where `dynts-batch` is on the PATH, in an environment that all nodes see. The run
# directory must lie on a file system that they share. Options of sbatch override those below:
# `sbatch --nodes=1 --gpus-per-node=4 --partition=NAME cluster/slurm.sh ...`.
#
# SIGTERM comes two minutes before the time limit or with a preemption. The run then stores what it
# has, and the job requeues itself: a run longer than the limit needs no hand. A run that breaks off
# (status 1) is tried again too, until the job has started MAX_STARTS times.
#SBATCH --job-name=dynts-batch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

fail() {
    echo "$1" >&2
    exit 1
}

[[ $# -gt 0 ]] || { echo "usage: sbatch cluster/slurm.sh CONFIG [key=value ...]" >&2; exit 2; }
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 10000))
gpus=${SLURM_GPUS_ON_NODE:-0}
# Since Slurm 22.05 a step does not inherit the job's --cpus-per-task: Ray would get one core.
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --block --node-ip-address="$head_ip" --port="$port" --num-gpus="$gpus" \
        --disable-usage-stats &
ray_head=$!
for node in "${nodes[@]:1}"; do
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" \
        ray start --block --address="$head_ip:$port" --num-gpus="$gpus" --disable-usage-stats &
done

export RAY_ADDRESS=$head_ip:$port
deadline_s=$((SECONDS + ${RAY_START_S:-300}))
until timeout 30 ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1; do
    # If the head does not come, all nodes would idle until the time limit.
    kill -0 "$ray_head" 2>/dev/null || fail "ray start --head ended on $head: see its output above"
    ((SECONDS < deadline_s)) \
        || fail "no Ray at $RAY_ADDRESS after ${RAY_START_S:-300} s (RAY_START_S)"
    sleep 2
done

num_workers=$((${#nodes[@]} * (gpus > 0 ? gpus : 1)))
dynts-batch run "$@" "workers.max=$num_workers" &
run=$!
trap 'kill -TERM "$run" 2>/dev/null || true' TERM
# A trapped signal ends the first wait; the second one gives the run's own status.
wait "$run" || true
status=0
wait "$run" || status=$?
starts=$((${SLURM_RESTART_COUNT:-0} + 1))
if ((status == 143 || status == 1 && starts < ${MAX_STARTS:-10})); then
    echo "the run is not finished (status $status): requeueing job $SLURM_JOB_ID" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
