package argo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// readTemplate reads the template that Argo left in the volume. If no container leaves one
// there, Argo 4.1 gives it in the environment.
func (r *run) readTemplate() (*template, error) {
	data, err := r.volume.read("template", maxTemplate)
	if given, ok := r.lookupEnv("ARGO_TEMPLATE"); ok && errors.Is(err, fs.ErrNotExist) {
		data, err = []byte(given), nil
		if given == "offloaded" {
			data, err = r.root.read("/argo/config/ARGO_TEMPLATE", maxTemplate)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	return parseTemplate(data)
}

const (
	// maxArguments bounds a file of arguments, in bytes. It comes from a
	// ConfigMap, which holds 1 MiB.
	maxArguments = 16 << 20
	// maxArgument is the longest argument, in bytes, that the guest gets as such
	// from a file of arguments: upstream's MaxEnvVarLen.
	maxArgument = 128 << 10
)

// arguments returns the guest's arguments without its name: those of the command
// line and, since Argo 3.7, those of a file. Of these, long ones are left in files
// below the container's /tmp, and the guest gets "@" and the file's name.
func (r *run) arguments() ([]string, error) {
	file := r.env("ARGO_CONTAINER_ARGS_FILE")
	if file == "" {
		return r.Args, nil
	}
	data, err := r.root.read(r.absolute(file), maxArguments)
	if err != nil {
		return nil, fmt.Errorf("read the container's arguments: %w", err)
	}
	var more []string
	if err := json.Unmarshal(data, &more); err != nil {
		return nil, fmt.Errorf("read the container's arguments from %s: %w", file, err)
	}
	args := append(r.Args[:len(r.Args):len(r.Args)], more...)
	r.log.Info("arguments read from file", "file", file, "count", len(more))
	for i, arg := range args {
		if len(arg) <= maxArgument {
			continue
		}
		name := "/tmp/argo_arg_" + strconv.Itoa(i) + ".txt"
		if err := r.leave(name, arg); err != nil {
			return nil, fmt.Errorf("leave argument %d, of %d bytes, in a file: %w", i, len(arg), err)
		}
		r.log.Info("long argument left in a file, the program must understand @FILE", "argument", i, "size", len(arg), "file", name)
		args[i] = "@" + name
	}
	return args, nil
}

// leave writes a file below the container's /tmp, which images of Wasm often lack.
func (r *run) leave(name, content string) error {
	err := unix.Mkdirat(int(r.root.dir.Fd()), "tmp", 0o777|unix.S_ISVTX)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &fs.PathError{Op: "mkdir", Path: "/tmp", Err: err}
	}
	if info, err := r.root.stat(name, 0); err == nil {
		if err := mustBeRegular(name, info); err != nil {
			return err
		}
	}
	f, err := r.root.open(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}
