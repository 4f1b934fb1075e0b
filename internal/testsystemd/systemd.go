// Package testsystemd is a substitute for systemd on machines where systemd is not process
// 1. It serves the D-Bus protocol at a socket, as systemd does at /run/systemd/private,
// for the calls that restart a unit. A function of the test does the restart. On machines
// with systemd, the tests of package incluster compare it with the real one. No shipped
// binary imports it.
package testsystemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/godbus/dbus/v5"
)

const (
	managerPath      = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerInterface = "org.freedesktop.systemd1.Manager"
)

// Server is a systemd with one unit.
type Server struct {
	unit     string
	restart  func(context.Context) error
	listener net.Listener
	ctx      context.Context
	stop     context.CancelFunc

	mu       sync.Mutex
	peers    []*dbus.Conn
	jobs     uint32
	restarts int
}

// Serve listens at the socket. A restart of the unit calls restart, whose error makes the
// job fail. The caller must call Close.
func Serve(socket, unit string, restart func(context.Context) error) (*Server, error) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	s := &Server{unit: unit, restart: restart, listener: listener}
	s.ctx, s.stop = context.WithCancel(context.Background())
	go s.accept()
	return s, nil
}

// Close ends the connections and cancels the context of a running restart.
func (s *Server) Close() error {
	s.stop()
	err := s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, peer := range s.peers {
		peer.Close() // also those that have disconnected
	}
	return err
}

// Restarts returns how many restarts have been asked for.
func (s *Server) Restarts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restarts
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		go s.greet(conn)
	}
}

// greet authenticates the peer and exports the manager's object and those of the units to
// it.
func (s *Server) greet(conn net.Conn) {
	if err := authenticate(conn); err != nil {
		conn.Close()
		return
	}
	// The peer may ask for a restart at once, and must receive the signal of its end.
	s.mu.Lock()
	defer s.mu.Unlock()
	peer, err := dbus.NewConn(&authenticated{ReadWriteCloser: conn})
	if err == nil {
		err = errors.Join(
			peer.Export(manager{s}, managerPath, managerInterface),
			peer.ExportSubtree(units{s}, managerPath+"/unit", "org.freedesktop.DBus.Properties"),
			peer.Auth([]dbus.Auth{dbus.AuthExternal("")}))
	}
	if err != nil {
		conn.Close()
		return
	}
	s.peers = append(s.peers, peer)
}

// authenticate is the server's side of the EXTERNAL mechanism (D-Bus specification,
// "Authentication Protocol"), for any user: the socket's folder belongs to the test. It
// reads byte by byte, because the bytes after BEGIN are for the next reader.
func authenticate(conn net.Conn) error {
	in := bufio.NewReaderSize(oneByte{conn}, 16)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		answer := "ERROR\r\n"
		switch command := strings.TrimSpace(strings.TrimLeft(line, "\x00")); {
		case command == "BEGIN":
			return nil
		case command == "AUTH":
			answer = "REJECTED EXTERNAL\r\n"
		case strings.HasPrefix(command, "AUTH EXTERNAL"):
			answer = "OK 0123456789abcdef0123456789abcdef\r\n"
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return err
		}
	}
}

// oneByte reads no more than one byte at a time.
type oneByte struct{ io.Reader }

func (r oneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:1]) }

// authenticated is a connection whose authentication is over. The library implements only
// the client's side of authentication. That side gets prepared replies here, without the
// peer.
type authenticated struct {
	io.ReadWriteCloser
	step int
}

func (a *authenticated) Read(p []byte) (int, error) {
	answers := []string{"REJECTED EXTERNAL\r\n", "OK 0123456789abcdef0123456789abcdef\r\n"}
	if a.step < len(answers) {
		a.step++
		return copy(p, answers[a.step-1]), nil
	}
	return a.ReadWriteCloser.Read(p)
}

func (a *authenticated) Write(p []byte) (int, error) {
	// The null byte, AUTH, AUTH EXTERNAL and BEGIN.
	if text := string(p); text == "\x00" || strings.HasSuffix(text, "\r\n") && (strings.HasPrefix(text, "AUTH") || strings.HasPrefix(text, "BEGIN")) {
		return len(p), nil
	}
	return a.ReadWriteCloser.Write(p)
}

// manager is the object whose methods are called (org.freedesktop.systemd1(5)).
type manager struct{ s *Server }

// ResetFailedUnit forgets that a unit has failed.
func (m manager) ResetFailedUnit(string) *dbus.Error { return nil }

// RestartUnit starts a job and returns its path. A signal reports its end.
func (m manager) RestartUnit(unit, mode string) (dbus.ObjectPath, *dbus.Error) {
	if unit != m.s.unit {
		return "", dbus.NewError("org.freedesktop.systemd1.NoSuchUnit", []any{fmt.Sprintf("Unit %s not found.", unit)})
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.s.jobs++
	m.s.restarts++
	id := m.s.jobs
	path := managerPath + dbus.ObjectPath(fmt.Sprintf("/job/%d", id))
	go m.s.run(id, path)
	return path, nil
}

func (s *Server) run(id uint32, path dbus.ObjectPath) {
	result := "done"
	if err := s.restart(s.ctx); err != nil {
		result = "failed"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, peer := range s.peers {
		peer.Emit(managerPath, managerInterface+".JobRemoved", id, path, s.unit, result) // fails for those that have disconnected
	}
}

// units has the properties of every unit, known or not, as systemd has them.
type units struct{ s *Server }

// Get returns LoadState, the only property there is.
func (u units) Get(message dbus.Message, _, property string) (dbus.Variant, *dbus.Error) {
	path, _ := message.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	if property != "LoadState" {
		return dbus.Variant{}, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", []any{"Unknown property " + property})
	}
	state := "not-found"
	if strings.HasSuffix(string(path), "/"+escape(u.s.unit)) {
		state = "loaded"
	}
	return dbus.MakeVariant(state), nil
}

// escape writes a unit's name as the last element of its object's path.
func escape(unit string) string {
	var b strings.Builder
	for i, c := range []byte(unit) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if letter || i > 0 && c >= '0' && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}
