// logger is a logging binary for containerd's "binary" URIs. It writes the container's output to the file named
// by its argument "file", each line with the container and the stream that it comes from.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd/v2/core/runtime/v2/logging"
)

func main() {
	logging.Run(func(_ context.Context, config *logging.Config, ready func() error) error {
		if len(os.Args) != 3 || os.Args[1] != "file" {
			return fmt.Errorf("got arguments %q", os.Args[1:])
		}
		file, err := os.Create(os.Args[2])
		if err != nil {
			return err
		}
		if err := ready(); err != nil {
			return err
		}
		for name, stream := range map[string]io.Reader{"stdout": config.Stdout, "stderr": config.Stderr} {
			lines := bufio.NewScanner(stream)
			for lines.Scan() {
				fmt.Fprintf(file, "%s/%s %s: %s\n", config.Namespace, config.ID, name, lines.Text())
			}
		}
		return file.Close()
	})
}
