package argo

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// writeArchive writes the file or directory at name in root as Argo's tar.gz: the same
// entries in the same order with the same fields as upstream's TarGzToWriter, so
// that unpacking and comparing it shows no difference. name is absolute.
//
// Links inside of a directory are archived as links; name itself may be a link
// to a file. If it is a link to a directory, the archive holds only the link, as upstream's.
// Sockets are an error.
func writeArchive(w io.Writer, root *tree, name string) error {
	return writeArchiveOf(w, root, name, readAccounts(root), gzip.DefaultCompression)
}

// WriteArchive writes an archive as Argo's emissary does, of the file or directory at name below the directory root.
// Links lead to where they lead in a container with that root. Names of users and groups are those of the directory
// accounts. level is one of compress/gzip.
func WriteArchive(w io.Writer, root, name, accounts string, level int) error {
	at, err := openRoot(root)
	if err != nil {
		return err
	}
	defer at.close()
	names, err := openRoot(accounts)
	if err != nil {
		return err
	}
	defer names.close()
	return writeArchiveOf(w, at, name, readAccounts(names), level)
}

func writeArchiveOf(w io.Writer, root *tree, name string, accounts accounts, level int) error {
	info, err := root.stat(name, 0)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return fmt.Errorf("%s is neither a regular file nor a directory but %s", name, kind(info.Mode()))
	}
	compressed, err := gzip.NewWriterLevel(w, level)
	if err != nil {
		return err
	}
	a := archive{tar: tar.NewWriter(compressed), accounts: accounts}
	if info.IsDir() {
		err = a.tree(root, name)
	} else {
		err = a.file(root, name, 0, path.Base(name))
	}
	if err != nil {
		return err
	}
	if err := a.tar.Close(); err != nil {
		return err
	}
	return compressed.Close()
}

type archive struct {
	tar      *tar.Writer
	accounts accounts
}

// tree adds a directory, or the link at its place.
func (a *archive) tree(root *tree, name string) error {
	base := path.Base(name)
	info, err := root.stat(name, unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	if info.Mode().Type() == fs.ModeSymlink {
		target, err := root.readlink(name)
		if err != nil {
			return err
		}
		return a.header(info, target, base)
	}
	dir, err := root.sub(name)
	if err != nil {
		return err
	}
	defer dir.close()
	return a.entry(dir, ".", base)
}

// entry adds what is at name in dir, and all below it.
func (a *archive) entry(dir *tree, name, base string) error {
	info, err := dir.stat(name, unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	as := path.Join(base, name)
	switch info.Mode().Type() {
	case 0:
		return a.file(dir, name, unix.O_NOFOLLOW, as)
	case fs.ModeSymlink:
		target, err := dir.readlink(name)
		if err != nil {
			return err
		}
		return a.header(info, target, as)
	case fs.ModeDir:
		names, err := dir.names(name)
		if err != nil {
			return err
		}
		if err := a.header(info, "", as); err != nil {
			return err
		}
		for _, entry := range names {
			if err := a.entry(dir, path.Join(name, entry), base); err != nil {
				return err
			}
		}
		return nil
	}
	return a.header(info, "", as)
}

// file adds a regular file.
func (a *archive) file(dir *tree, name string, flag int, as string) error {
	f, err := dir.openRegular(name, flag)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := a.header(info, "", as); err != nil {
		return err
	}
	if _, err := io.Copy(a.tar, f); err != nil {
		return fmt.Errorf("%s: %w", as, err)
	}
	return nil
}

// header adds an entry's header. A directory's name has no "/" at its end.
func (a *archive) header(info fs.FileInfo, link, as string) error {
	header, err := tar.FileInfoHeader(owned{info, a.accounts}, link)
	if err != nil {
		return fmt.Errorf("%s: %w", as, err)
	}
	header.Name = as
	if err := a.tar.WriteHeader(header); err != nil {
		return fmt.Errorf("%s: %w", as, err)
	}
	return nil
}
