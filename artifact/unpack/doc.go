// Package unpack unpacks an archive into a file or a folder, and serves that over FUSE from the beginning on, to readers
// that wait only for what they read.
//
//   - A look-up of a name waits until the name has arrived, or the archive has ended. So do a new name and the list of a
//     folder, which wait for the end.
//   - A read waits for its bytes. Attributes are those that the file will have.
//   - A change of a file waits until the file has arrived: opening it for writing, chmod, unlink, rename. A change of the
//     name of a folder waits for the end.
//
// The kernel lets a folder have one change of its names, or any number of look-ups, at a time: while a look-up in a folder
// waits, so do changes of names in it.
//
// An interrupted wait ends with EINTR at once. After an error of unpacking, and also if the archive turns out to be another
// one than [archive.Look] has said, everything fails with EIO: nothing wrong is read.
//
// The guest that reads is taken to be hostile: the package resolves each name from the folder with openat2, beneath it,
// through no symbolic link and into no other mount. Links are read, and never followed. It makes no device.
//
// The package never mounts or unmounts, makes no request, and needs no /proc. How much it writes is bounded by the volume.
package unpack
