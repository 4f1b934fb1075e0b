#!/usr/bin/env bash
# Checks that run.sh works as documented: output, exit codes, cgroup v2, a read-only
# host, a guaranteed end, nothing left behind. Takes about 30 s. "smoke.sh --systemd"
# also checks systemd as the first process.

set -euo pipefail

run=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)/run.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tmp" "$work/results"
export TMPDIR=$work/tmp # run.sh makes its files there: it must be empty afterwards

# expect WHAT WANT GOT ends the test unless GOT is WANT.
expect() {
	if [[ $3 != "$2" ]]; then
		printf 'FAILED: %s\n  want: %s\n  got:  %s\n' "$1" "$2" "$3" >&2
		exit 1
	fi
	echo "ok: $1"
}

# guest [OPTION…] -- COMMAND runs a command with run.sh and sets $output and $code.
guest() {
	code=0
	output=$("$run" "$@" 2>"$work/stderr") || code=$?
	if [[ $code -eq 125 ]]; then
		cat "$work/stderr" >&2
	fi
}

# shellcheck disable=SC2016 # expanded in the guest
guest -- bash -c 'echo to stdout; echo to stderr >&2; [ -t 1 ] && echo terminal; stat -f -c %T /sys/fs/cgroup
	cat /sys/fs/cgroup/cgroup.subtree_control; echo "$TMPDIR $PWD"; exit 42'
expect "exit code" 42 "$code"
expect "output, cgroup v2 with its controllers, current folder" \
	"$(printf 'to stdout\nto stderr\ncgroup2fs\ncpu io memory pids\n/tmp %s' "$PWD")" "$output"

guest -- bash -c 'seq 1 200000; head -c 300000 /dev/zero | tr "\0" "\r"'
expect "1.6 MB of output unchanged" \
	"$({ seq 1 200000 && head -c 300000 /dev/zero | tr '\0' '\r'; } | sha256sum)" \
	"$(printf %s "$output" | sha256sum)"

# shellcheck disable=SC2016
guest --rw "$work/results" -- bash -c '
	mount -o remount,rw /; mkdir -p /tmp/sys && mount -t hostfs host /tmp/sys -o /sys
	touch /root/written-by-guest /tmp/sys/fs/cgroup/written-by-guest && echo wrote to the host
	mkdir /sys/fs/cgroup/small && echo 20M >/sys/fs/cgroup/small/memory.max
	(echo $BASHPID >/sys/fs/cgroup/small/cgroup.procs; exec tail /dev/zero)
	echo $? >'"$work"'/results/tail
	grep -w oom_kill /sys/fs/cgroup/small/memory.events'
expect "memory limit, host read-only" "oom_kill 1" "$(grep -v -e '^touch:' -e 'Killed' <<<"$output")"
expect "result in the --rw folder" 137 "$(<"$work/results/tail")"

guest --timeout 5 -- sleep infinity
expect "timeout" 124 "$code"

guest -- bash -c 'sleep infinity & exit 3'
expect "exit code beside a process left behind" 3 "$code"

if [[ ${1-} == --systemd ]]; then
	guest --systemd -- systemd-run --quiet --scope --unit=smoke -p MemoryMax=64M cat /proc/self/cgroup
	expect "systemd scope over D-Bus" "0 0::/system.slice/smoke.scope" "$code $output"
fi

expect "no file left behind" "" "$(ls -A "$TMPDIR")"
expect "no process left behind" "" "$(pgrep -f "[l]inux.uml.*$TMPDIR" || true)"
echo "all ok"
