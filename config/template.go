package config

import "strings"

const template = `# Configuration of containerd-shim-wasm on this node. Each container reads it when
# it starts: no restart is needed. What is commented out is the default.

# Folder for compiled modules. Only root may write to it.
#cache_dir = "/var/lib/containerd-shim-wasm/cache"

# How much of them is kept; the least recently used go first, those in use never.
#cache_size = "2GiB"

# Largest module that is accepted: bytes, or KiB, MiB, GiB, TiB.
#max_module_size = "256MiB"

# What compiling one module may take. A container's own limits count, too.
#compile_timeout = "120s"
#compile_memory = "2GiB"

# How many modules may be compiled at once; a quarter of that for one namespace, and one at
# least. Default: the number of processors, and 4 at least.
#max_compilations = 4

# Files with precompiled machine code (.cwasm) that containers may run, by digest. It
# is not confined as WebAssembly is: list only what you have made yourself.
#precompiled = []

# Whether systemd manages cgroups. "install" takes it from containerd's runc entry.
#systemd_cgroup = false

# Whether our own program does the work of Argo's executor in the init and wait
# containers of workflows' pods, where all that they need is known to it.
#argo_executor = true

# Whether Wasm containers of workflows read input artifacts from S3 as files, while they
# run. false: the artifacts are downloaded before.
#lazy_artifacts = true

# S3 stores for pods that name artifacts by annotation: see docs/artifacts.md. Each
# store is a table, and the tables come at the end of this file:
#   [[s3]]
#   endpoint = "https://s3.example.org"
#   namespaces = ["team-a"]          # of Kubernetes, which may use these credentials
#   credentials = "/etc/containerd-shim-wasm/team-a.toml"

# Where such pods' results wait until they are uploaded, and how much one container may
# have there.
#spool_dir = "/var/lib/containerd-shim-wasm/spool"
#spool_size = "10GiB"

# trace, debug, info, warn or error. Unset: what containerd asks for.
#log_level = "info"
`

// Template returns the file that install writes on a node without one: every key with its default and its
// meaning. All keys are commented out, except systemd_cgroup if it is set.
func Template(systemdCgroup bool) string {
	if !systemdCgroup {
		return template
	}
	return strings.Replace(template, "#systemd_cgroup = false", "systemd_cgroup = true", 1)
}
