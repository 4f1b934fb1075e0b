// Command tree prints what lies below a folder, one thing a line: its mode, its path and, of a link,
// where that leads. It leaves out what is below /dev and /proc.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func main() {
	root := os.Getenv("TREE")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		at, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		target, _ := os.Readlink(path) // only a link has one
		fmt.Printf("%v %s %s\n", info.Mode(), at, target)
		if at == "dev" || at == "proc" {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
