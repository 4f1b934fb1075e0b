// Package executor knows which init and wait containers of Argo's workflows our own program can do the work of, in
// the place of "argoexec init" and "argoexec wait". Known tells it from a container's command and environment alone,
// Release from its image's name; everything else is left to the real argoexec.
//
// Known are templates of the kinds container, script and containerSet of Argo 3.6, 3.7 and 4.0, with artifacts in stores
// of S3 and HTTP, or that are texts of the template. The sources are upstream's cmd/argoexec and
// workflow/controller/workflowpod.go. The daemon asks this package, so it opens no file, waits for nothing, and imports
// no network. Package step does the work.
package executor
