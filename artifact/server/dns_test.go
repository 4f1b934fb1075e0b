package server

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// answerNames has all names resolved to 127.0.0.1 until the test ends. It returns a function that lists those that were
// asked for.
func answerNames(t *testing.T) func() []string {
	t.Helper()
	var mu sync.Mutex
	var asked []string
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer ours.Close()
			for {
				name, err := answerName(ours)
				if err != nil {
					return
				}
				mu.Lock()
				asked = append(asked, name)
				mu.Unlock()
			}
		}()
		return theirs, nil
	}}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(asked)
	}
}

// answerName answers one question, in the form of DNS over TCP.
func answerName(conn net.Conn) (string, error) {
	var size uint16
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		return "", err
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(conn, text); err != nil {
		return "", err
	}
	var m dnsmessage.Message
	if err := m.Unpack(text); err != nil {
		return "", err
	}
	question := m.Questions[0]
	m.Response, m.Additionals = true, nil
	if question.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	text, err := m.Pack()
	if err != nil {
		return "", err
	}
	_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...))
	return question.Name.String(), err
}
