// Package output stores what a task writes to a mount of package mount as objects of S3, while it is written: a large file
// is uploaded in parts, each when the task has gone on to the next. Nothing is visible in the store before the task has
// ended and all parts of all outputs are there; then each object appears whole.
//
// A part that is changed after it was sent is sent again at the end. What is not stored yet lies in files without names,
// whose room is bounded. The task may be hostile: what it writes is only read, and names that it makes become keys only if
// they are ones that every store takes.
//
// The package never mounts, follows no link of the task, and shows no object that is not whole.
package output
