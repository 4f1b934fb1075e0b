// Command tree prints the files below the folder $TREE, one on a line: the mode, the path and, for a link,
// the target. It leaves out all files below dev and proc there.
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
