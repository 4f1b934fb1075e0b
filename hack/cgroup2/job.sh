#!/bin/bash
# Runs the command that run.sh was given, sends its output through the first serial line,
# writes its exit code into the exchange folder and turns the guest off.

set -u

# How long to wait for the end of output that another process still holds open.
readonly grace=5

# shellcheck source=/dev/null
. /run/exchange/job

exec 3>/dev/ttyS0
stty raw -echo <&3 2>/dev/null || stty -F /dev/ttyS0 raw -echo

# A pipe, not the serial line itself: commands behave differently on a terminal.
mkfifo /run/output
cat /run/output >&3 &
copier=$!

# shellcheck disable=SC2154 # job, cwd, path and home come with the job
(
	exec 3>&- </dev/null >/run/output 2>&1
	ulimit -n 65536
	cd "$cwd" || exit 126
	exec env -i PATH="$path" HOME="$home" TMPDIR=/tmp "${job[@]}"
)
code=$?

for ((i = 0; i < grace * 10; i++)); do
	kill -0 "$copier" 2>/dev/null || break
	sleep 0.1
done
if kill "$copier" 2>/dev/null; then
	echo "the command has ended, but something it started still holds its output open" >/run/exchange/note
fi
stty -F /dev/ttyS0 drain
exec 3>&-

echo "$code" >/run/exchange/exit
sync
echo o >/proc/sysrq-trigger
sleep infinity
