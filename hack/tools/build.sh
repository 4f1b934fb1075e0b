#!/usr/bin/env bash
# Builds pinned tools from their module, once per version, into .cache/tools/NAME-VERSION/bin, and prints that
# folder for each NAME. If optional packages change a tool's build, the folder's name has a suffix for them: a
# tool that was built before such a package was installed is not mistaken for one that was built after.
#
# The version of a tool is in one place: the require line of NAME/go.mod. Standard output has only the folders;
# progress goes to standard error.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TOOLS_CACHE:-$(cd "$here/../.." && pwd)/.cache/tools}

usage() {
	cat <<-USAGE
		usage: hack/tools/build.sh NAME…     build what is not built yet, print each bin folder
		       hack/tools/build.sh --list    print the names and their pinned versions
	USAGE
}

say() { echo "$*" >&2; }

die() {
	say "build.sh: $*"
	exit 1
}

names() {
	local file
	for file in "$here"/*/go.mod; do
		basename "$(dirname "$file")"
	done
}

# module_of NAME prints the module and the version that NAME/go.mod pins: the longest
# required path that its first command lies below ("go mod tidy" marks it as indirect too).
module_of() {
	local tool
	tool=$(packages_of "$1" | head -n 1)
	awk -v tool="$tool" '
		$1 == "require" && $2 != "(" { $0 = substr($0, length("require ") + 1) }
		$2 ~ /^v[0-9]/ && index(tool "/", $1 "/") == 1 && length($1) > length(path) { path = $1; version = $2 }
		END { if (path != "") print path, version }' "$here/$1/go.mod"
}

# packages_of NAME prints the commands that NAME/go.mod lists as tools.
packages_of() {
	awk '$1 == "tool" && $2 != "(" { print $2 }
		$1 == "tool" && $2 == "(" { inside = 1; next }
		inside && $1 == ")" { inside = 0 }
		inside { print $1 }' "$here/$1/go.mod"
}

# estimate NAME prints how long a build with empty caches takes on two cores.
estimate() {
	case $1 in
	kubernetes) echo "about 10 min" ;;
	containerd-*) echo "about 90 s" ;;
	argo-*) echo "about 7 min" ;;
	runc) echo "about 20 s" ;;
	nerdctl) echo "about 45 s" ;;
	minio) echo "about 3 min" ;;
	*) echo "about 30 s" ;;
	esac
}

# copy_module NAME MODULE VERSION DIR writes into DIR a copy of the module, in "module", and a go.mod that builds
# NAME from that copy. An overlay would copy less, but Go refuses overlays below its module cache.
copy_module() {
	local name=$1 module=$2 version=$3 out=$4 source
	source=$(cd "$here/$name" && GOWORK=off GOFLAGS=-mod=readonly go list -m -f '{{.Dir}}' "$module")
	if [[ -z $source ]]; then
		(cd "$here/$name" && GOWORK=off GOFLAGS='' go mod download "$module@$version") >&2
		source=$(cd "$here/$name" && GOWORK=off GOFLAGS=-mod=readonly go list -m -f '{{.Dir}}' "$module")
	fi
	mkdir "$out"
	cp -R "$source" "$out/module" || return
	chmod -R u+w "$out/module"
	cp "$here/$name/"go.{mod,sum} "$out/"
	echo "replace $module => $out/module" >>"$out/go.mod"
}

# mend_argo DIR adds a file that is missing in Argo's module archive. Upstream's signal_linux.go is a symbolic
# link, and module archives contain no links. Without the file argoexec does not compile.
mend_argo() {
	local source
	for source in "$1/module/workflow/executor/"os*specific/signal_darwin.go; do
		cp "$source" "${source%darwin.go}linux.go" || return # the folder has another name in 3.6
	done
}

# mend_nerdctl DIR removes files for nerdctl's own tests: they need a module that is not published anywhere.
mend_nerdctl() {
	rm "$1/module/cmd/nerdctl/helpers/"testing*.go
}

# has_libseccomp reports whether runc can be built with seccomp support: its cgo asks pkg-config.
has_libseccomp() { "${PKG_CONFIG:-pkg-config}" --exists libseccomp 2>/dev/null; }

# variant NAME prints the suffix for the optional packages that NAME is built with.
variant() {
	[[ $1 != runc ]] || if has_libseccomp; then echo -seccomp; else echo -noseccomp; fi
}

# compile NAME MODULE VERSION DIR builds every command of NAME into DIR.
compile() {
	local name=$1 module=$2 version=$3 out=$4
	local -a packages flags=(-trimpath -mod=readonly)
	local cgo=0
	mapfile -t packages < <(packages_of "$name")
	case $name in
	argo-*)
		copy_module "$name" "$module" "$version" "${out%/bin}/source" && mend_argo "${out%/bin}/source" || return
		flags+=(-modfile "${out%/bin}/source/go.mod" -ldflags "-s -w -X $module.version=$version")
		;;
	containerd-*)
		flags+=(-ldflags "-s -w -X $module/version.Version=$version -X $module/version.Package=$module")
		;;
	kubernetes)
		local variables="" package
		for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
			variables+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$version")"
		done
		flags+=(-ldflags "-s -w$variables")
		;;
	nerdctl)
		copy_module "$name" "$module" "$version" "${out%/bin}/source" && mend_nerdctl "${out%/bin}/source" || return
		flags+=(-modfile "${out%/bin}/source/go.mod" -tags no_ipfs -ldflags "-s -w -X $module/pkg/version.Version=$version")
		;;
	versitygw)
		flags+=(-ldflags "-s -w -X main.Version=$version")
		;;
	cni-plugins)
		flags+=(-ldflags "-s -w -X $module/pkg/utils/buildversion.BuildVersion=$version")
		;;
	etcd | minio)
		flags+=(-ldflags "-s -w")
		;;
	runc)
		# runc enters namespaces in C, before Go's runtime starts its threads.
		cgo=1
		command -v "${CC:-gcc}" >/dev/null || die "runc needs a C compiler: install gcc (hack/deps.sh does)"
		if has_libseccomp; then
			flags+=(-tags seccomp)
		else
			say "note: no libseccomp-dev or no pkg-config, this runc will not apply seccomp profiles (hack/deps.sh installs both)"
		fi
		flags+=(-ldflags "-s -w -X main.version=${version#v}")
		;;
	esac
	(cd "$here/$name" && GOWORK=off GOFLAGS='' CGO_ENABLED=$cgo \
		go build "${flags[@]}" -buildvcs=false -o "$out/" "${packages[@]}") >&2 || return
	# etcd's package has another name.
	[[ $name != etcd ]] || mv "$out/server" "$out/etcd"
	rm -rf "${out%/bin}/source"
}

# provide NAME builds NAME if necessary and prints its bin folder.
provide() {
	local name=$1 module version dir partial began
	# The machine's own runc, if it applies seccomp profiles: "runc --version" then names the library.
	if [[ $name == runc ]] && command -v runc >/dev/null && [[ $(runc --version 2>/dev/null) == *libseccomp* ]]; then
		dirname "$(command -v runc)"
		return
	fi
	[[ -e $here/$name/go.mod ]] || die "unknown tool \"$name\"; known: $(names | xargs)"
	read -r module version < <(module_of "$name") || die "$name/go.mod requires no module"
	local label="${name%-[0-9]*} ${version#v}"
	dir=$cache/${label// /-}$(variant "$name")
	if [[ -d $dir ]]; then
		echo "$dir/bin"
		return
	fi
	command -v go >/dev/null || die "building $label needs Go: https://go.dev/dl"
	mkdir -p "$cache"

	# One builder per version; the others wait for it and use its result.
	exec 9>"$dir.lock"
	flock 9
	if [[ ! -d $dir ]]; then
		say "building $label ($(estimate "$name")) …"
		began=$SECONDS
		partial=$(mktemp -d "$cache/.build-XXXXXX")
		chmod 755 "$partial"
		if ! compile "$name" "$module" "$version" "$partial/bin"; then
			rm -rf "$partial"
			die "building $label failed, see above"
		fi
		mv -T "$partial" "$dir"
		say "… done in $((SECONDS - began)) s"
	fi
	exec 9>&-
	echo "$dir/bin"
}

main() {
	[[ $# -gt 0 ]] || {
		usage >&2
		exit 2
	}
	local name version
	case $1 in
	-h | --help)
		usage
		;;
	--list)
		names | while read -r name; do
			read -r _ version < <(module_of "$name")
			echo "$name ${version#v}"
		done
		;;
	*)
		for name; do
			provide "$name"
		done
		;;
	esac
}

main "$@"
