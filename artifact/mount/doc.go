// Package mount serves objects as files over FUSE, each mount over a descriptor of /dev/fuse that its caller has mounted.
//
// The root of a mount is a folder, or the regular file itself: then nobody has to look up a name in a file system that
// is served by a process that may be hostile or stuck. The mount needs the options rootmode=100644 for a file and
// rootmode=40755 for a folder, user_id, group_id, default_permissions and allow_other: the kernel checks permissions, the
// package does not.
//
// A file that is opened for writing is first copied as a whole into a folder of the caller, as a downloaded file would
// be, and is that copy from then on. The copy has no name there: it is gone when the server ends. It takes a descriptor.
//
// A read that the kernel interrupts ends at once with EINTR, so that a reader that is killed is not held up by the store.
// A read that fails is EIO, and is logged once for each object and code.
//
// The process that serves a mount must not open its files with package os: Go's runtime polls what it opens with a lock
// held that the server needs.
//
// The package never mounts or unmounts, never speaks to the store except through package object, and runs no program.
package mount
