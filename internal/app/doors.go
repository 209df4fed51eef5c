package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/identity"
)

// closeWithin bounds how long open calls may go on when the daemon ends.
const closeWithin = time.Second

// listen opens the doors of the API and the one of the console, and returns what
// serves them until ctx ends.
func (d *Daemon) listen(ctx context.Context) ([]func() error, error) {
	handler := httpapi.New(d, d.opt.Version)
	local, err := d.localDoor(ctx)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	// All addresses: one that appears later is served too.
	public, err := lc.Listen(ctx, "tcp", fmt.Sprintf(":%d", d.port))
	if err != nil {
		_ = local.Close()
		return nil, &api.Error{Code: "port-taken", Message: fmt.Sprintf("tcp port %d cannot be opened: %v", d.port, err),
			Hint: "is another daemon running, or should the cluster file name another port for this node?"}
	}
	quiet := slog.NewLogLogger(d.log.Handler(), slog.LevelDebug)
	inside := &http.Server{
		Handler:           asCaller(handler, func(*http.Request) httpapi.Caller { return httpapi.Caller{Kind: httpapi.Local, Name: "root"} }),
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet,
	}
	outside := &http.Server{
		Handler: asCaller(d.away.calls(handler), d.whoCalls), TLSConfig: d.away.handshakes(d.ctx, d.id.AnswerByAddress(d.id.ServerTLS(d.trust), d.browsedAt)),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: quiet,
	}
	return []func() error{
		func() error { return serveUntil(ctx, inside, func() error { return inside.Serve(local) }) },
		func() error {
			return serveUntil(ctx, outside, func() error { return d.servePublic(ctx, outside, public) })
		},
		d.consoleDoor(ctx, handler, quiet),
	}, nil
}

func serveUntil(ctx context.Context, s *http.Server, serve func() error) error {
	stop := context.AfterFunc(ctx, func() {
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
		defer cancel()
		if s.Shutdown(sctx) != nil {
			_ = s.Close()
		}
	})
	defer stop()
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// asCaller notes who calls before the handler runs.
func asCaller(h http.Handler, who func(*http.Request) httpapi.Caller) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(httpapi.WithCaller(r.Context(), who(r))))
	})
}

func (d *Daemon) whoCalls(r *http.Request) httpapi.Caller {
	c := httpapi.Caller{Kind: httpapi.Anonymous, Addr: addrOf(r.RemoteAddr)}
	if r.TLS == nil {
		return c
	}
	switch who := d.id.Who(*r.TLS, d.trust); {
	case d.isMember(who):
		c.Kind, c.Name = httpapi.Node, string(who.Node)
	case who.Kind == identity.Link:
		c.Kind, c.Name, c.Link = httpapi.Linked, string(who.Cluster), who.Link
	default:
		c = d.showsToken(r, c)
	}
	return c
}

// showsToken makes a caller of who shows an access token.
func (d *Daemon) showsToken(r *http.Request, c httpapi.Caller) httpapi.Caller {
	text, shown := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !shown {
		return c
	}
	id, a, good := d.bearer(r.Context(), strings.TrimSpace(text))
	if !good {
		c.Stale = true
		return c
	}
	c.Kind, c.Name, c.Roles, c.Token = httpapi.Token, a.Name, a.Roles, id
	return c
}

// isMember says whether a certificate is that of a node that the cluster file
// still has.
func (d *Daemon) isMember(who identity.Caller) bool {
	return who.Kind == identity.OwnNode && d.file().Node(who.Node) != nil
}

// addrOf returns the address of HOST:PORT; IPv4 as such.
func addrOf(hostPort string) netip.Addr {
	a, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// localDoor opens the socket for root on this machine.
func (d *Daemon) localDoor(ctx context.Context) (net.Listener, error) {
	path := d.dirs.Socket()
	// The store is locked by now, so a socket that is there was left behind.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open the local socket: %w", err)
	}
	// The mode of the socket becomes that of the file.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(failed, err)
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the local socket: %w", err)
	}
	return rootOnly{l.(*net.UnixListener)}, nil
}

// rootOnly lets in who the kernel says is root, or the user that this daemon
// runs as.
type rootOnly struct{ *net.UnixListener }

func (l rootOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && (uid == 0 || uid == uint32(os.Getuid())) {
			return c, nil
		}
		_ = c.Close()
	}
}

func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

// servePublic serves the one port: messages between nodes and the API, told
// apart by the protocol that TLS agreed on.
func (d *Daemon) servePublic(ctx context.Context, s *http.Server, l net.Listener) error {
	s.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		identity.ProtocolPeer: func(_ *http.Server, c *tls.Conn, _ http.Handler) { d.servePeer(c) },
	}
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	return s.ServeTLS(l, "", "")
}

// servePeer hands an accepted connection of a node to the transport.
func (d *Daemon) servePeer(c *tls.Conn) {
	who := d.id.Who(c.ConnectionState(), d.trust)
	if !d.isMember(who) {
		_ = c.Close()
		return
	}
	d.peers.Serve(c, who.Node)
}
