// Package archive reads the archives that Argo unpacks: tar compressed by gzip, and zip. [Untar] and [Unzip] have the rules
// of Argo's init for names, links and modes. [Look] says what an artifact will be, from a small part of its object.
//
// An archive of one file, or of one folder, becomes that file or that folder. An uncompressed tar is no archive, as
// upstream has it.
//
// The package never writes a file except through an [os.Root], never keeps the content of a file in memory, and makes no
// request.
package archive
