#!/usr/bin/env bash
# usage: view.sh DIR… -- COMMAND [ARG…]
#
# Makes every mount of its mount namespace read-only except the folders DIR, then executes
# COMMAND. run.sh calls it in a namespace of its own. Reason: the guest's root could
# remount what the guest itself mounts read-only. It cannot change a mount that is
# read-only for the process that runs the guest.

set -euo pipefail

while [[ $1 != -- ]]; do
	mount --bind "$1" "$1"
	kept+=("$1")
	shift
done
shift

# kept DIR reports whether the mount on DIR must stay as it is.
kept() {
	local dir
	for dir in "${kept[@]}"; do
		[[ $1 != "$dir" && $1 != "$dir"/* ]] || return 0
	done
	return 1
}

# Mounts that others cover cannot be reached by the guest either.
findmnt --noheadings --raw --output TARGET | sort --unique | while read -r target; do
	printf -v target %b "$target"
	if ! kept "$target" && mountpoint --quiet "$target"; then
		mount -o remount,bind,ro "$target"
	fi
done
exec "$@"
