#!/usr/bin/env bash
# Installs the Debian packages that building and testing need, if they are missing. Prints nothing if all are
# there. Needs apt and root only if something is missing.

set -euo pipefail

packages=(
	# the worker (cgo) and runc
	gcc libc6-dev libseccomp-dev pkg-config
	# cross-building for arm64
	gcc-aarch64-linux-gnu libc6-dev-arm64-cross
	# Wasm guests in C and Rust
	clang lld wasi-libc libclang-rt-14-dev-wasm32 rustc libstd-rust-dev-wasm32
	# native images, network namespaces and mounts
	busybox-static iproute2 mount e2fsprogs
	# the cgroup v2 guest
	user-mode-linux kmod systemd dbus
	# make lint
	shellcheck
)

die() {
	printf 'deps.sh: %s\n' "$@" >&2
	exit 1
}

# missing prints the packages that dpkg does not have installed.
missing() {
	local package status
	for package in "${packages[@]}"; do
		status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
		[[ $status == installed ]] || echo "$package"
	done
}

if ! { command -v dpkg-query && command -v apt-get; } >/dev/null; then
	die "this machine has no apt; install what these Debian packages hold: ${packages[*]}"
fi

mapfile -t wanted < <(missing)
# npm fetches the tools that make components of modules. A Node.js from elsewhere has an npm of its own, and
# Debian's package would replace it.
command -v npm >/dev/null || wanted+=(npm)
[[ ${#wanted[@]} -gt 0 ]] || exit 0

[[ $EUID -eq 0 ]] ||
	die "missing packages: ${wanted[*]}" "run as root: apt-get install --no-install-recommends ${wanted[*]}"

echo "installing ${wanted[*]} …" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
refresh() { apt-get update -qq >"$log" 2>&1; }
install() { apt-get install -qq -y --no-install-recommends "${wanted[@]}" >"$log" 2>&1; }

# The package lists may be absent or older than the mirror: refresh them, then try once more.
if ! install && { ! refresh || ! install; }; then
	cat "$log" >&2
	die "apt-get failed, see above; missing: ${wanted[*]}"
fi
echo "… done in $SECONDS s" >&2
