package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Handler carries out a request; tell answers it, once, now or later.
type Handler func(r Request, tell func(Message))

// Server is the process's end.
type Server struct {
	listener *net.UnixListener
	handle   Handler
	greet    func() []Message

	mu    sync.Mutex
	conns map[*net.UnixConn]struct{}
}

// writeLimit is how long a daemon that does not read is waited for.
const writeLimit = time.Second

// Listen makes the socket in a directory of ours. greet returns what a daemon that
// connects is to know first.
func Listen(dir string, handle Handler, greet func() []Message) (*Server, error) {
	path := filepath.Join(dir, FileSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("make the socket of a mirror disk: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("make the socket of a mirror disk: %w", err)
	}
	return &Server{listener: l, handle: handle, greet: greet, conns: map[*net.UnixConn]struct{}{}}, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the socket of a mirror disk: %w", err)
		}
		go s.serve(ctx, conn)
	}
}

func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	s.mu.Lock()
	s.conns[conn] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	for _, m := range s.greet() {
		s.write(conn, m)
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r Request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return
		}
		s.handle(r, func(m Message) {
			m.ID = r.ID
			s.write(conn, m)
		})
	}
}

// Tell sends a message that answers nothing to whoever is connected.
func (s *Server) Tell(m Message) {
	m.ID = 0
	s.mu.Lock()
	conns := make([]*net.UnixConn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		s.write(c, m)
	}
}

// write sends one line. Who does not take it is cut off, and connects again.
func (s *Server) write(conn *net.UnixConn, m Message) {
	data, err := json.Marshal(m)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := conn.SetWriteDeadline(time.Now().Add(writeLimit)); err == nil {
		_, err = conn.Write(append(data, '\n'))
		if err == nil {
			return
		}
	}
	_ = conn.Close()
}
