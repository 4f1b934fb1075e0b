#!/usr/bin/env bash
# Runs a command as root in a User-Mode Linux guest that has unified cgroup v2, on a
# read-only view of this machine's root, and ends with the command's exit code.
# README.md in this folder lists what the guest has and what is missing.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
repo=$(cd "$here/../.." && pwd -P)

# Exit codes of run.sh itself; the first is timeout(1)'s.
readonly timed_out=124 no_guest=125

usage() {
	cat <<-USAGE
		usage: hack/cgroup2/run.sh [OPTION…] -- COMMAND [ARG…]

		  --mem SIZE         the guest's memory (default 4096M)
		  --timeout SECONDS  ends the guest for certain (default 900), exit code $timed_out
		  --rw DIR           the command may write to this folder of the host; repeatable
		  --ro DIR           shows this folder of the host where the guest's empty /tmp,
		                     /run, /var/lib or /var/tmp would hide it; repeatable.
		                     The repository is always shown.
		  --systemd          systemd as the guest's first process (packages systemd, dbus)
		  --console          the guest's kernel log on standard error

		The command starts in the current folder with PATH and HOME as they are and
		nothing else of the environment (use: -- env NAME=VALUE COMMAND). Its output, both
		streams in order, comes out here on standard output. Exit code $no_guest: the guest
		ended before the command did; the end of its kernel log follows on standard error.
	USAGE
}

die() {
	echo "run.sh: $*" >&2
	exit "$no_guest"
}

# need COMMAND PACKAGE fails unless the host, whose root the guest uses, has COMMAND.
need() {
	command -v "$1" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ||
		die "$1 is missing: apt-get install $2"
}

# folder DIR prints DIR as an absolute path that is safe in a mount option.
folder() {
	[[ -d $1 ]] || die "\"$1\" is not a folder"
	local dir
	dir=$(cd "$1" && pwd -P)
	[[ $dir != *[[:space:],]* ]] || die "\"$dir\": a space or comma in a path is more than hostfs can mount"
	echo "$dir"
}

# memory_folder MIB prints the folder for User-Mode Linux's memory file: in memory if
# there is room and mappings may be executable, otherwise beside the other files.
memory_folder() {
	local options free
	options=$(findmnt --noheadings --output OPTIONS --target /dev/shm || true)
	free=$(df --output=avail --block-size=1M /dev/shm 2>/dev/null | tail -n 1)
	if [[ ,$options, != *,noexec,* && ${free:-0} -ge $1 && $(stat -f -c %T /dev/shm) == tmpfs ]]; then
		echo /dev/shm
	else
		echo "$scratch"
	fi
}

# mebibytes SIZE prints SIZE (with K, M or G, as the kernel's mem= takes it) in MiB.
mebibytes() {
	local bytes
	bytes=$(numfmt --from=iec "${1^^}" 2>/dev/null) || die "--mem $1: not a size such as 4096M"
	echo $((bytes / 1048576))
}

mem=4096M
timeout=900
init=plain
console=
ro=("$repo")
rw=()
while [[ $# -gt 0 ]]; do
	case $1 in
	--mem | --timeout | --rw | --ro)
		[[ $# -ge 2 ]] || die "$1 needs a value"
		case $1 in
		--mem) mem=$2 ;;
		--timeout) timeout=$2 ;;
		--rw) rw+=("$(folder "$2")") ;;
		--ro) ro+=("$(folder "$2")") ;;
		esac
		shift 2
		;;
	--systemd) init=systemd && shift ;;
	--console) console=yes && shift ;;
	-h | --help) usage && exit ;;
	--) shift && break ;;
	*) usage >&2 && exit 2 ;;
	esac
done
[[ $# -gt 0 ]] || {
	usage >&2
	exit 2
}
[[ $timeout =~ ^[1-9][0-9]*$ ]] || die "--timeout $timeout: not a number of seconds"
[[ $EUID -eq 0 ]] || die "must be run as root: the guest sees the host's files with this user's rights"
need linux.uml user-mode-linux
need insmod kmod
need ip iproute2
need unshare util-linux
if [[ $init == systemd ]]; then
	[[ -x /lib/systemd/systemd ]] || die "systemd is missing: apt-get install systemd"
	need dbus-daemon dbus
fi
mib=$(mebibytes "$mem")

scratch=$(mktemp -d)
guest=
reader=
# Ends the guest if it still runs: when its first process dies, the kernel ends the pid
# namespace and all of User-Mode Linux's helper processes.
# shellcheck disable=SC2317 # called by a trap
finish() {
	if [[ -n $guest ]]; then
		kill -KILL "$guest" 2>/dev/null || true
		wait "$guest" "$reader" 2>/dev/null || true
	fi
	rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The files that the guest's init.sh and job.sh read. They are copies, so that run.sh
# chooses the paths on the kernel's command line.
job=("$@")
cwd=$PWD
path=$PATH
home=${HOME:-/root}
declare -p job cwd path home init ro rw >"$scratch/job"
cp "$here/init.sh" "$here/job.sh" "$scratch/"
: >"$scratch/console"

# The command's output comes through the guest's first serial line. The kernel sets its
# end to non-blocking raw mode, so the line gets a pipe of its own.
mkfifo "$scratch/output"
cat "$scratch/output" &
reader=$!
exec 5>"$scratch/output"

# If this script is killed, its child gets the signal, and so on down to the namespace.
memory=$(memory_folder "$mib")
TMPDIR=$memory setpriv --pdeathsig KILL \
	unshare --mount --propagation private --pid --fork --kill-child=KILL -- \
	"$here/view.sh" "$scratch" "$memory" "${rw[@]}" -- \
	timeout --signal KILL "$timeout" \
	linux.uml "mem=${mib}M" "uml_dir=$scratch/uml" noreboot \
	root=/dev/root rootfstype=hostfs rootflags=/ ro "init=$scratch/init.sh" "EXCHANGE=$scratch" \
	con=null "con0=null,fd:1" ssl=null "ssl0=null,fd:5" pty.legacy_count=0 lsm=capability \
	</dev/null >"$scratch/console" 2>&1 &
guest=$!
exec 5>&-
began=$SECONDS
code=0
wait "$guest" || code=$?
guest=
wait "$reader"

[[ -z $console ]] || cat "$scratch/console" >&2
[[ ! -s $scratch/note ]] || echo "run.sh: $(<"$scratch/note")" >&2
if [[ -s $scratch/exit ]]; then
	exit "$(<"$scratch/exit")"
fi
if [[ $((SECONDS - began)) -ge $timeout ]]; then
	echo "run.sh: ended after $timeout s: ${job[*]}" >&2
	exit "$timed_out"
fi
echo "run.sh: the guest ended with code $code before the command did; its last words:" >&2
tail -n 40 "$scratch/console" >&2
exit "$no_guest"
