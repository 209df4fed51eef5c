package link

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tasuki-ha/tasuki/internal/identity"
)

// The benchmarks have the other copy in another process, as it is in life: the
// test binary itself, told so by an environment variable.
const echoEnv = "TASUKI_LINK_ECHO"

func TestMain(m *testing.M) {
	if how := os.Getenv(echoEnv); how != "" {
		if err := echo(how); err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	err := goleak.Find()
	for began := time.Now(); err != nil && time.Since(began) < 2*HandshakeTimeout; {
		err = goleak.Find() // attempts that lost are on their way out
	}
	if code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// pipe is what a way of connecting has in common with Conn.
type pipe interface {
	Send(*Header, []byte) error
	Receive(*Header) error
	ReadPayload([]byte) error
	Close() error
}

// straight is a connection without any of what this package does: plain TCP, or
// crypto/tls on it.
type straight struct {
	net.Conn
	in *bufio.Reader
}

func (s straight) Send(h *Header, p []byte) error {
	if _, encrypted := s.Conn.(*tls.Conn); !encrypted {
		_, err := (&net.Buffers{h[:], p}).WriteTo(s.Conn)
		return err
	}
	if _, err := s.Write(h[:]); err != nil || len(p) == 0 {
		return err
	}
	_, err := s.Write(p)
	return err
}

func (s straight) Receive(h *Header) error    { _, err := io.ReadFull(s.in, h[:]); return err }
func (s straight) ReadPayload(p []byte) error { _, err := io.ReadFull(s.in, p); return err }

// echo accepts one connection and confirms every frame, the first four bytes of
// which are the length of its payload.
func echo(env string) error {
	how, dir, _ := strings.Cut(env, " ")
	id, err := identity.Load(dir)
	if err != nil {
		return err
	}
	var p pipe
	if how == "plain" || how == "tls" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		fmt.Println(l.Addr().(*net.TCPAddr).Port)
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if how == "tls" {
			c = tls.Server(c, judge(id.ServerTLS(nil), id, "a"))
		}
		p = straight{c, bufio.NewReader(c)}
	} else {
		l, err := Listen(background(), ListenOptions{Addresses: loopback, Identity: id, Peer: "a", Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		fmt.Println(l.Port())
		for {
			c, err := l.Accept(background())
			if err != nil {
				return err
			}
			go func() { _ = confirm(c) }()
		}
	}
	return confirm(p)
}

// confirm sends the header of every frame back.
func confirm(p pipe) error {
	var h Header
	buf := make([]byte, 1<<20+Overhead)
	for {
		if err := p.Receive(&h); err != nil {
			return err
		}
		if err := p.ReadPayload(buf[:size(&h)]); err != nil {
			return err
		}
		if err := p.Send(&h, nil); err != nil {
			return err
		}
	}
}

// connect starts the other process and connects to it.
func connect(b *testing.B, how string) pipe {
	b.Helper()
	one, _, dir := identities(b)
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), echoEnv+"="+how+" "+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	port, err := strconv.ParseUint(strings.TrimSpace(line), 10, 16)
	if err != nil {
		b.Fatal(err)
	}
	var p pipe
	if how == "plain" || how == "tls" {
		c, err := net.Dial("tcp", netip.AddrPortFrom(loopback[0], uint16(port)).String())
		if err != nil {
			b.Fatal(err)
		}
		if how == "tls" {
			c = tls.Client(c, judge(one.PeerTLS("b"), one, "b"))
		}
		p = straight{c, bufio.NewReader(c)}
	} else {
		d := NewDialer(DialOptions{Addresses: loopback, Port: uint16(port), Identity: one, Peer: "b"})
		if p, err = d.Dial(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { _ = p.Close() })
	return p
}

var ways = []string{"plain", "tls", "link"}

// BenchmarkRoundTrip4K is one write of 4 KiB and its confirmation, one after the
// other.
func BenchmarkRoundTrip4K(b *testing.B) {
	for _, how := range ways {
		b.Run(how, func(b *testing.B) {
			p := connect(b, how)
			h, back, payload := head(4096), Header{}, make([]byte, 4096)
			var took []time.Duration
			b.SetBytes(4096)
			for b.Loop() {
				began := time.Now()
				if err := errors.Join(p.Send(&h, payload), p.Receive(&back)); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "median-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1000, "p99-µs")
		})
	}
}

// BenchmarkStream1M is frames of 1 MiB, with up to eight that are not confirmed.
func BenchmarkStream1M(b *testing.B) {
	for _, how := range ways {
		b.Run(how, func(b *testing.B) {
			p := connect(b, how)
			h, payload := head(1<<20), make([]byte, 1<<20)
			window := make(chan struct{}, 8)
			done := make(chan error, 1)
			total := make(chan int, 1)
			go func() {
				var back Header
				seen, all := 0, -1
				for seen != all {
					select {
					case all = <-total:
						continue
					case <-window:
					}
					if err := p.Receive(&back); err != nil {
						done <- err
						return
					}
					seen++
				}
				done <- nil
			}()
			b.SetBytes(1 << 20)
			sent := 0
			for b.Loop() {
				window <- struct{}{}
				if err := p.Send(&h, payload); err != nil {
					b.Fatal(err)
				}
				sent++
			}
			total <- sent
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}
