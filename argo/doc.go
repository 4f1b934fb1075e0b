// Package argo keeps Argo Workflows' side of the contract in a container whose
// program cannot be argoexec's child: it does what "argoexec emissary" does
// around a program, for a guest that its caller runs.
//
// Argo wraps a container's command as "argoexec emissary … -- FILE ARGS…". The
// wrapper exchanges files with Argo's other containers of the pod in a volume at
// /var/run/argo: it reads the template and the signals to send, and writes the
// program's exit code, captured output, output parameters and artifacts. The
// sources are upstream's cmd/argoexec/commands/emissary.go and kill.go,
// workflow/executor/emissary and util/archive, in versions 3.5 to 4.1.
//
// Paths in the container are chosen by templates and guests. They are resolved
// below the container's root as after chroot(2), and what lies below the volume
// without following any symbolic link, by descriptors and never by name twice.
// The package starts no process, imports neither engine nor daemon, and uses no
// network. Its caller gives it the function that starts the guest.
package argo
