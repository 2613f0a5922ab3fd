#!/usr/bin/env bash
# A Ray cluster of several nodes on this machine, one raylet each, to try out a real one:
#
#   cluster/local.sh [NUM_NODES] [CPUS_PER_NODE] [-- COMMAND ...]
#
# With a command, it runs that with RAY_ADDRESS set, and then stops the cluster. Without one, it
# prints the address and waits for Ctrl-C. It stops only the processes that it started.
set -euo pipefail

fail() {
    echo "error: $1" >&2
    exit "${2:-1}"
}

num_nodes=3
cpus=1
if [[ $# -gt 0 && $1 != -- ]]; then num_nodes=$1; shift; fi
if [[ $# -gt 0 && $1 != -- ]]; then cpus=$1; shift; fi
if [[ $# -gt 0 ]]; then shift; fi

ray=$(command -v ray) || fail "ray is not on the PATH: activate its environment" 2
port=${RAY_PORT:-$((20000 + RANDOM % 10000))}
dashboard_port=${RAY_DASHBOARD_PORT:-$((port + 10001))}
address=127.0.0.1:$port
log=$(mktemp -d)
pids=()

# The head goes last: nodes that lose it wait half a minute for its return.
stop() {
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
    rm -rf "$log"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# One at a time: if nodes of one machine start together, some join late or never.
start() {
    local output="$log/${#pids[@]}"
    "$ray" start --block --disable-usage-stats --object-store-memory=134217728 "$@" \
        >"$output" 2>&1 &
    pids+=($!)
    until grep -q 'Ray runtime started' "$output"; do
        kill -0 "${pids[-1]}" 2>/dev/null || { cat "$output" >&2; fail "a node did not start"; }
        sleep 0.2
    done
}

# The head has no room for workers, like the small machine that is the head of a real cluster.
start --head --node-ip-address=127.0.0.1 --port="$port" --num-cpus=0 --include-dashboard=true \
    --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port"
# The cluster takes jobs some seconds later than nodes.
until (exec 3<>"/dev/tcp/127.0.0.1/$dashboard_port") 2>/dev/null; do
    kill -0 "${pids[0]}" 2>/dev/null || { cat "$log/0" >&2; fail "the head ended"; }
    sleep 0.2
done
for _ in $(seq "$num_nodes"); do
    start --address="$address" --node-ip-address=127.0.0.1 --num-cpus="$cpus"
done

export RAY_ADDRESS=$address
if [[ $# -gt 0 ]]; then
    DYNTS_DASHBOARD=http://127.0.0.1:$dashboard_port "$@"
else
    echo "RAY_ADDRESS=$address  jobs: http://127.0.0.1:$dashboard_port " \
        "($num_nodes nodes of $cpus CPU; Ctrl-C stops them)"
    wait
fi
