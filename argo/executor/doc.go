// Package executor does what Argo Workflows' "argoexec init" and "argoexec wait" do in a pod, for
// templates that need no artifacts: a small program instead of argoexec, which is above 100 MB.
// The sources are upstream's cmd/argoexec, workflow/executor and workflow/executor/emissary, in
// versions 3.6, 3.7 and 4.0.
//
// Only what is known is stood in for. Known decides by the command line and the environment alone,
// so that a daemon can ask before the container starts. What the template needs is known to "wait"
// only inside the container: Main then executes the image's own argoexec in its place, before it has
// done anything.
//
// The volume at /var/run/argo is shared with containers that nobody trusts. This package opens nothing
// there but regular files and directories, follows no link there, and reads bounded amounts.
package executor
