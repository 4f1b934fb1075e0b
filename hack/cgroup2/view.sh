#!/usr/bin/env bash
# usage: view.sh DIR… -- COMMAND [ARG…]
#
# Makes every mount of its mount namespace read-only except the folders DIR, then becomes
# COMMAND. Called by run.sh in a namespace of its own: what the guest mounts read-only, its
# root could mount anew; what is read-only for the process that runs the guest stays so.

set -euo pipefail

while [[ $1 != -- ]]; do
	mount --bind "$1" "$1"
	kept+=("$1")
	shift
done
shift

# kept DIR reports whether the mount on DIR is one of those to be left alone.
kept() {
	local dir
	for dir in "${kept[@]}"; do
		[[ $1 != "$dir" && $1 != "$dir"/* ]] || return 0
	done
	return 1
}

# Mounts hidden below others are out of the guest's reach, too.
findmnt --noheadings --raw --output TARGET | sort --unique | while read -r target; do
	printf -v target %b "$target"
	if ! kept "$target" && mountpoint --quiet "$target"; then
		mount -o remount,bind,ro "$target"
	fi
done
exec "$@"
