package sandbox

import (
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// label is the security label that the worker gets at exec, in the form of AppArmor or
// SELinux: an open attribute file and the text to write.
type label struct {
	file *os.File
	text string
	what string
}

// openLabel opens the attribute file of the thread that will fork; only that
// thread may write it.
func openLabel(tid int, p *specs.Process) (label, error) {
	switch {
	case p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined":
		return openAttribute(tid, "process.apparmorProfile", "apparmor/exec", "exec "+p.ApparmorProfile)
	case p.SelinuxLabel != "":
		return openAttribute(tid, "process.selinuxLabel", "exec", p.SelinuxLabel)
	}
	return label{}, nil
}

func openAttribute(tid int, what, name, text string) (label, error) {
	path := filepath.Join("/proc", fmt.Sprint(os.Getpid()), "task", fmt.Sprint(tid), "attr", name)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return label{}, fmt.Errorf("%s %q: this kernel does not take it: %w", what, text, err)
	}
	return label{file: f, text: text, what: what}, nil
}

func (l label) set() error {
	if l.file == nil {
		return nil
	}
	if _, err := l.file.WriteString(l.text); err != nil {
		return fmt.Errorf("set %s %q: %w", l.what, l.text, err)
	}
	return nil
}

func (l label) close() {
	if l.file != nil {
		l.file.Close()
	}
}
