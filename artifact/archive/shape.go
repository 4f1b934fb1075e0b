package archive

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// shape is a Target that keeps only what would be where.
type shape struct {
	kinds map[string]made
	top   string // the first at the top
	tops  int    // how many are at the top
}

// made is a folder, a link or a file.
type made struct {
	mode     fs.FileMode // with the type
	size     int64
	modified time.Time
}

// maxMade bounds what is kept of an archive, in memory.
const maxMade = 1 << 17

func (s *shape) add(name string, m made) error {
	if len(s.kinds) == maxMade {
		return fmt.Errorf("it has more than %d files and folders", maxMade)
	}
	if _, ok := s.kinds[name]; ok {
		return fmt.Errorf("%s is in it twice", name)
	}
	// A name that no disk has: that of the only folder is never made.
	if base := path.Base(name); len(base) > unix.NAME_MAX || strings.ContainsRune(base, 0) {
		return fmt.Errorf("%q is not a name of a file", base)
	}
	s.kinds[name] = m
	if !strings.Contains(name, "/") {
		if s.tops++; s.tops == 1 {
			s.top = name
		}
	}
	return nil
}

// Folder makes a folder and those above it.
func (s *shape) Folder(name string, mode fs.FileMode) error {
	if name == "." {
		return nil
	}
	if m, ok := s.kinds[name]; ok {
		if !m.mode.IsDir() {
			return fmt.Errorf("%s is in it as a folder and as another file", name)
		}
		return nil
	}
	if err := s.Folder(path.Dir(name), mode); err != nil {
		return err
	}
	return s.add(name, made{mode: mode | fs.ModeDir})
}

// Link makes a link.
func (s *shape) Link(name, _ string) error {
	if err := s.Folder(path.Dir(name), linkAbove); err != nil {
		return err
	}
	return s.add(name, made{mode: fs.ModeSymlink})
}

// File makes a file.
func (s *shape) File(f File) error {
	if err := s.Folder(path.Dir(f.Name), f.Above); err != nil {
		return err
	}
	return s.add(f.Name, made{mode: f.Mode, size: f.Size, modified: f.Modified})
}

// wholeMode are the permissions of the folder into which Argo unpacks.
const wholeMode fs.FileMode = 0o777

// plan says what Argo makes of it.
func (s *shape) plan(format Format) Plan {
	if s.tops != 1 {
		return Plan{Kind: Tree, Format: format, Mode: wholeMode}
	}
	m := s.kinds[s.top]
	plan := Plan{Format: format, Top: s.top, Mode: m.mode.Perm()}
	switch m.mode.Type() {
	case fs.ModeDir:
		plan.Kind = Tree
	case 0:
		plan.Kind, plan.Size, plan.Modified = Regular, m.size, m.modified
	default:
		return unknown(s.top + " is a link")
	}
	return plan
}
