package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
)

// patience is how long anything may take in a test before it counts as hung; more
// in a guest.
var patience = 20 * time.Second

// An offer is a device that is served on a socket.
type offer struct {
	*fronttest.Device
	server *Server
	socket string
}

// offered serves the device until the test ends, and looks then whether the server
// kept the contract and left nothing running.
func offered(t testing.TB, dev *fronttest.Device) *offer {
	t.Helper()
	already := goleak.IgnoreCurrent()
	dir, err := os.MkdirTemp("", "nbd") // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	o := &offer{Device: dev, socket: filepath.Join(dir, "s")}
	o.server = NewServer("md1", dev, slog.New(slog.NewTextHandler(t.Output(), nil)))
	l, err := Listen(t.Context(), o.socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- o.server.Serve(l) }()
	t.Cleanup(func() {
		o.server.Close()
		if err := <-served; err != nil {
			t.Errorf("the server ended with %v", err)
		}
		dev.Release()
		dev.Check(t)
		goleak.VerifyNone(t, already)
		_ = os.RemoveAll(dir)
	})
	return o
}

// A client speaks the protocol byte by byte, well or badly.
type client struct {
	t testing.TB
	net.Conn
}

func (o *offer) dial(t testing.TB) *client {
	t.Helper()
	conn, err := net.Dial("unix", o.socket)
	if err != nil {
		t.Fatal(err)
	}
	return clientOf(t, conn)
}

func clientOf(t testing.TB, conn net.Conn) *client {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{t, conn}
}

// put writes all parts, numbers in network order.
func (c *client) put(parts ...any) {
	c.t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b.WriteString(p)
		case []byte:
			b.Write(p)
		default:
			if err := binary.Write(&b, binary.BigEndian, p); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	if _, err := c.Write(b.Bytes()); err != nil {
		c.t.Fatal(err)
	}
}

// get reads n bytes.
func (c *client) get(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

// ends waits until the server has hung up, whatever it says before.
func (c *client) ends() {
	c.t.Helper()
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the server did not hang up")
	}
}

// hello does the first part of the handshake.
func (c *client) hello() {
	c.t.Helper()
	if got := c.get(18); !bytes.Equal(got, []byte("NBDMAGICIHAVEOPT\x00\x03")) {
		c.t.Fatalf("the server begins with %q", got)
	}
	c.put(uint32(fixedNewstyle | noZeroes))
}

func (c *client) option(option uint32, data []byte) {
	c.t.Helper()
	c.put("IHAVEOPT", option, uint32(len(data)), data)
}

// answer reads one answer to an option.
func (c *client) answer(option uint32) (kind uint32, data []byte) {
	c.t.Helper()
	b := c.get(20)
	if got := binary.BigEndian.Uint64(b); got != answerMagic {
		c.t.Fatalf("an answer begins with %#x", got)
	}
	if got := binary.BigEndian.Uint32(b[8:]); got != option {
		c.t.Fatalf("an answer to option %d, not to %d", got, option)
	}
	return binary.BigEndian.Uint32(b[12:]), c.get(int(binary.BigEndian.Uint32(b[16:])))
}

// wish is the data of INFO and GO for an export and one kind of information.
func wish(name string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	return append(b, 0, 1, 0, infoBlockSize)
}

// ready returns a client in the transmission phase.
func (o *offer) ready(t testing.TB) *client {
	t.Helper()
	c := o.dial(t)
	c.hello()
	c.option(optGo, wish("md1"))
	for kind := uint32(0); kind != ansAck; {
		if kind, _ = c.answer(optGo); kind >= 1<<31 {
			t.Fatalf("GO is refused with %#x", kind)
		}
	}
	return c
}

// request sends one; data follows it.
func (c *client) request(flags, command uint16, cookie, offset uint64, length uint32, data ...byte) {
	c.t.Helper()
	c.put(uint32(requestMagic), flags, command, cookie, offset, length, data)
}

// reply reads one; what a read returns is not part of it.
func (c *client) reply() (cookie uint64, err uint32) {
	c.t.Helper()
	b := c.get(replySize)
	if got := binary.BigEndian.Uint32(b); got != replyMagic {
		c.t.Fatalf("a reply begins with %#x", got)
	}
	return binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[4:])
}

// want reads one reply and compares it.
func (c *client) want(cookie uint64, err uint32) {
	c.t.Helper()
	if gotCookie, gotErr := c.reply(); gotCookie != cookie || gotErr != err {
		c.t.Fatalf("request %d is answered with %d, want request %d with %d", gotCookie, gotErr, cookie, err)
	}
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never came that %s", what)
		}
	}
}

// fill returns n bytes that tell where they belong: each 8 are their number, with
// the seed on top.
func fill(n int, seed byte) []byte {
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(i)|uint64(seed)<<56)
	}
	return b[:n]
}
