package incluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// Restart is a way to restart containerd. The zero value restarts nothing: the operator has to.
type Restart struct {
	unit    string   // of systemd
	socket  string   // systemd's
	command []string // that does it
}

// SystemdSocket is where systemd serves root directly, without a message bus.
const SystemdSocket = "/run/systemd/private"

// ParseRestart understands "systemd:UNIT", which asks systemd at the socket,
// "exec:COMMAND", which runs a command of the pod with its arguments after blanks,
// and "none".
func ParseRestart(text, systemdSocket string) (Restart, error) {
	kind, rest, _ := strings.Cut(text, ":")
	switch {
	case text == "none":
		return Restart{}, nil
	case kind == "systemd" && rest != "":
		return Restart{unit: rest, socket: systemdSocket}, nil
	case kind == "exec" && strings.TrimSpace(rest) != "":
		return Restart{command: strings.Fields(rest)}, nil
	}
	return Restart{}, fmt.Errorf("%q is no way to restart containerd: give systemd:UNIT, exec:COMMAND or none", text)
}

func (r Restart) String() string {
	switch {
	case r.unit != "":
		return "systemd, unit " + r.unit
	case r.command != nil:
		return strings.Join(r.command, " ")
	}
	return "left to the operator"
}

func (r Restart) none() bool { return r.unit == "" && r.command == nil }

// check reports, before anything is changed, why a restart could not work.
func (r Restart) check(ctx context.Context) error {
	if r.command != nil {
		_, err := exec.LookPath(r.command[0])
		return err
	}
	if r.none() {
		return nil
	}
	conn, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	state, err := conn.GetUnitPropertyContext(ctx, r.unit, "LoadState")
	if err != nil {
		return fmt.Errorf("ask systemd for unit %s: %w", r.unit, err)
	}
	if state.Value.Value() != "loaded" {
		return fmt.Errorf("systemd has no unit %s (LoadState is %s); give the one that runs containerd: --restart=systemd:UNIT", r.unit, state.Value)
	}
	return nil
}

// restart returns when the unit is up again, or the command has ended.
func (r Restart) restart(ctx context.Context) error {
	if r.command != nil {
		out, err := exec.CommandContext(ctx, r.command[0], r.command[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", r, err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	if r.none() {
		return errors.New("containerd's restart is left to the operator")
	}
	conn, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// One that has failed too often is not started again before this. A unit that
	// has not failed is none to reset.
	_ = conn.ResetFailedUnitContext(ctx, r.unit)
	done := make(chan string, 1)
	if _, err := conn.RestartUnitContext(ctx, r.unit, "replace", done); err != nil {
		return fmt.Errorf("ask systemd to restart %s: %w", r.unit, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("systemd could not restart %s: the job's result is %q (see journalctl -u %s)", r.unit, result, r.unit)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for systemd to restart %s: %w", r.unit, ctx.Err())
	}
}

func (r Restart) connect(ctx context.Context) (*systemd.Conn, error) {
	conn, err := systemd.NewConnection(func() (*dbus.Conn, error) {
		conn, err := dbus.Dial("unix:path="+dbus.EscapeBusAddressValue(r.socket), dbus.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		// By number: a look-up of the user's name would need a file that the image lacks.
		if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return conn, nil
	})
	if err != nil {
		return nil, fmt.Errorf("systemd at %s: %w; on a node without systemd give --restart=none or exec:COMMAND", r.socket, err)
	}
	return conn, nil
}
