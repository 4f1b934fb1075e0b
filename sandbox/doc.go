// Package sandbox starts a process that is born confined: a throw-away OS
// thread applies everything that the container's OCI specification asks for
// (mounts, root, namespaces, credentials, capabilities, no_new_privs, seccomp)
// and then forks the worker, which inherits all of it. The thread dies; nothing
// of the set-up stays in the daemon. A worker can also be the stand-in of a native
// program in the container's own root (Launch.Native), for pause containers.
//
// The package never runs guest code, never opens a path chosen by the guest
// outside the container's own root (every such path is resolved by openat2(2)
// with RESOLVE_IN_ROOT), and never drops a field of the specification silently:
// a field that cannot be honoured is refused by name (see Check).
//
// It needs Linux 5.12 (openat2, open_tree, move_mount, mount_setattr, pidfd).
package sandbox
