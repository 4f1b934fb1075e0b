package incluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/install"
	"github.com/wasmshim/containerd-shim-wasm/internal/endpoint"
)

const usage = `wasm-node-installer keeps containerd-shim-wasm-v1 installed on the node that it runs on. It is the one
container of the DaemonSet in deploy/node-installer; docs/kubernetes.md describes it.

flags:
`

// Command runs the installer until the context ends and returns the exit code: 0, 1 for
// a failure, 2 for wrong arguments.
func Command(ctx context.Context, args []string, stderr io.Writer) int {
	options, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	logger := log.New(stderr, "", log.LstdFlags|log.LUTC)
	if err != nil {
		logger.Print(err)
		return 2
	}
	installer, err := New(options, logger)
	if err == nil {
		err = installer.Run(ctx)
	}
	if err != nil {
		logger.Print(err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (Options, error) {
	var o Options
	var restart, systemdSocket string
	fs := flag.NewFlagSet("wasm-node-installer", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.Node, "node", os.Getenv("NODE_NAME"), "`NAME` of this node (default: $NODE_NAME)")
	fs.StringVar(&o.DaemonSet, "daemonset", "node-installer", "`NAME` of the DaemonSet; when that is removed, the installation is, too")
	fs.StringVar(&o.Socket, "socket", endpoint.DefaultAddress, "containerd's `SOCKET`")
	fs.StringVar(&o.Install.Config, "config", "/etc/containerd/config.toml", "containerd's configuration `FILE`")
	fs.StringVar(&o.Install.BinDir, "bin-dir", "/usr/local/bin", "`FOLDER` for the shim, on containerd's PATH")
	fs.StringVar(&o.Install.NodeConfig, "node-config", config.DefaultPath, "the shim's own configuration `FILE`")
	fs.StringVar(&o.Install.Binary, "shim", "/"+install.BinaryName, "the shim in the image, a `FILE`")
	fs.StringVar(&o.State, "state", "/var/lib/containerd-shim-wasm", "the shim's `FOLDER`, which a removal empties")
	fs.StringVar(&restart, "restart", "systemd:containerd.service", "`HOW` to restart containerd: systemd:UNIT, exec:COMMAND, or none")
	fs.StringVar(&systemdSocket, "systemd-socket", SystemdSocket, "systemd's own `SOCKET`")
	fs.DurationVar(&o.Timeout, "timeout", 2*time.Minute, "how long containerd may take to restart, and then to serve")
	fs.DurationVar(&o.Drain, "drain", time.Minute, "how long a removal waits for Wasm pods to end")
	fs.DurationVar(&o.Interval, "interval", 20*time.Second, "time between two checks of the node")
	fs.StringVar(&o.Listen, "listen", ":8080", "`ADDRESS` for the readiness probe")
	fs.StringVar(&o.Credentials, "credentials", "/var/run/secrets/kubernetes.io/serviceaccount", "the service account's `FOLDER`")
	fs.StringVar(&o.Server, "server", os.Getenv("KUBERNETES_SERVICE_HOST"), "`URL` of the API server (default: from the pod's environment)")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; see --help", fs.Arg(0))
	}
	if o.Node == "" || o.Server == "" {
		return o, errors.New("this runs in a pod: NODE_NAME and KUBERNETES_SERVICE_HOST are not set; " +
			"on a node itself run \"" + install.BinaryName + " install\"")
	}
	if o.Server == os.Getenv("KUBERNETES_SERVICE_HOST") {
		o.Server = "https://" + net.JoinHostPort(o.Server, os.Getenv("KUBERNETES_SERVICE_PORT"))
	}
	var err error
	o.Restart, err = ParseRestart(restart, systemdSocket)
	return o, err
}
