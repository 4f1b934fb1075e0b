package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"

	"github.com/wasmshim/containerd-shim-wasm/children"
	"github.com/wasmshim/containerd-shim-wasm/module"
	"github.com/wasmshim/containerd-shim-wasm/shim/stock"
)

// Serve is the daemon: it answers containerd on the socket that the start verb
// made, until containerd says Shutdown and no container is left.
func Serve(flags Flags, programs module.Programs, executor module.Place) error {
	log, err := openLog(flags)
	if err != nil {
		return err
	}
	listener, bootstrap, err := inherit()
	if err != nil {
		log.WithError(err).Error("start the daemon")
		return err
	}
	loader := &module.Loader{Address: flags.Address, Namespace: flags.Namespace, StateDir: StateDir, Programs: programs, Log: log}
	d := &daemon{flags: flags, bootstrap: bootstrap, stateDir: StateDir, log: log, loader: loader, placeExecutor: executor}
	return d.serve(listener)
}

// inherit takes over the descriptors that the start verb left open.
func inherit() (net.Listener, []byte, error) {
	f := os.NewFile(listenerFD, "listener")
	listener, err := net.FileListener(f)
	if err != nil {
		return nil, nil, fmt.Errorf("take over the socket: this verb is for the start verb's use: %w", err)
	}
	f.Close()
	params := os.NewFile(bootstrapFD, "bootstrap")
	defer params.Close()
	bootstrap, err := io.ReadAll(io.NewSectionReader(params, 0, maxBootstrap))
	if err != nil {
		return nil, nil, fmt.Errorf("read bootstrap parameters: %w", err)
	}
	return listener, bootstrap, nil
}

func (d *daemon) serve(listener net.Listener) error {
	server, err := ttrpc.NewServer()
	if err != nil {
		return fmt.Errorf("create server: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events := newEvents(os.Getenv("TTRPC_ADDRESS"), d.flags.Namespace, d.log)
	service := &service{daemon: d, events: events, native: &stock.Shim{Flags: d.stock()}, shutdown: cancel, calm: newCalm(), containers: map[string]tasks.TTRPCTaskService{}}
	service.register(server)
	go d.shutdownOnSignal(cancel)
	go children.Watch()
	go d.announceCgroup()

	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ctx, announcing{listener, d}); err != nil && !errors.Is(err, ttrpc.ErrServerClosed) {
			d.log.WithError(err).Error("serve containerd: it takes this shim for dead")
		}
	})
	<-ctx.Done()
	// Remove the socket first, so that no client finds a shim that is ending.
	os.Remove(listener.Addr().String())
	stop, done := context.WithTimeout(context.Background(), stopLimit)
	defer done()
	// This lets the answer to Shutdown out before the connection ends.
	if err := server.Shutdown(stop); err != nil {
		d.log.WithError(err).Debug("end the server")
	}
	serving.Wait()
	events.close()
	return nil
}

// stopLimit bounds each step that must not keep containerd waiting.
const stopLimit = 3 * time.Second

// announcing announces the use of a cgroup at each connection. A client that connects is about to create a
// container: the start verb, to check for a running daemon, and then containerd.
type announcing struct {
	net.Listener
	daemon *daemon
}

func (a announcing) Accept() (net.Conn, error) {
	conn, err := a.Listener.Accept()
	if err == nil {
		go a.daemon.announceCgroup()
	}
	return conn, err
}

func (d *daemon) shutdownOnSignal(shutdown func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGPIPE)
	s := <-signals
	d.log.WithField("signal", s).Info("end on a signal")
	shutdown()
}

// openLog opens the log: the FIFO "log" of the bundle, which containerd copies to its own log. Each line
// names its shim.
func openLog(flags Flags) (*logrus.Entry, error) {
	logger := logrus.New()
	logger.SetFormatter(shortLines{&logrus.TextFormatter{DisableColors: true, FullTimestamp: true, TimestampFormat: "2006-01-02T15:04:05.000000000Z07:00"}})
	if flags.Debug {
		logger.SetLevel(logrus.DebugLevel)
	}
	fifo, err := openFIFO("log")
	if err != nil {
		return nil, fmt.Errorf("open shim log: %w", err)
	}
	if err := fifo.becomeStderr(); err != nil {
		return nil, fmt.Errorf("open shim log: %w", err)
	}
	logger.SetOutput(fifo)
	entry := logger.WithFields(logrus.Fields{"runtime": "io.containerd.wasm.v1", "namespace": flags.Namespace, "shim": flags.ID})
	if group, err := groupOf(".", flags.ID); err == nil && group != flags.ID {
		entry = entry.WithField("pod", group)
	}
	return entry, nil
}
