package nbd

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/genetlink/genltest"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
)

// A fake is a kernel with one NBD device, number 3. It keeps the socket that it is
// given and can be a client on it.
type fake struct {
	t   *testing.T
	dir string

	mu     sync.Mutex // guards what follows
	socket *client    // the kernel's end
	dead   bool       // that end is: it may be replaced
	said   []string   // command and attributes, in hex; the descriptor as 00000000
	refuse error
}

const fakeID = 0x1d

func newFake(t *testing.T) *fake {
	t.Helper()
	k := &fake{t: t, dir: t.TempDir()}
	for _, name := range []string{"nbd3/queue/io_timeout", "dev/nbd3"} {
		path := filepath.Join(k.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func (k *fake) door() door {
	f := genetlink.Family{ID: fakeID, Version: 1, Name: familyName}
	return door{sys: k.dir, dev: filepath.Join(k.dir, "dev"), open: func() (*family, error) {
		return find(genltest.Dial(genltest.ServeFamily(f, k.hear)))
	}}
}

// hear is the kernel's side of a message.
func (k *fake) hear(m genetlink.Message, n netlink.Message) ([]genetlink.Message, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n.Header.Type == 0 { // asked whether there is more
		return nil, io.EOF
	}
	if n.Header.Type != fakeID || m.Header.Version != 1 {
		k.t.Errorf("a message of type %d, version %d", uint16(n.Header.Type), m.Header.Version)
	}
	if k.refuse != nil {
		return nil, k.refuse
	}
	data := bytes.Clone(m.Data)
	// The one attribute of variable content: sockets, one socket, its descriptor.
	if at := bytes.Index(data, []byte{16, 0, attrSockets, 0x80, 12, 0, attrSocketItem, 0x80, 8, 0, attrSocketFD, 0}); at >= 0 {
		fd := data[at+12 : at+16]
		k.take(int(fd[0]) | int(fd[1])<<8)
		clear(fd)
	}
	k.said = append(k.said, hex.EncodeToString([]byte{m.Header.Command})+" "+hex.EncodeToString(data))
	switch m.Header.Command {
	case cmdConnect:
		k.identity("tasuki:md1\n")
		return []genetlink.Message{{Data: []byte{8, 0, attrIndex, 0, 3, 0, 0, 0}}}, nil
	case cmdGiveUp:
		k.identity("")
		if k.socket != nil {
			_, _ = k.socket.Write(bytesOf(uint32(requestMagic), uint16(0), uint16(cmdDisconnect), make([]byte, 20)))
			_ = k.socket.Close()
		}
	}
	return nil, nil
}

// identity sets that of the device; empty: it is not connected.
func (k *fake) identity(is string) {
	path := filepath.Join(k.dir, "nbd3", "backend")
	_ = os.Remove(path)
	if is != "" {
		if err := os.WriteFile(path, []byte(is), 0o600); err != nil {
			k.t.Error(err)
		}
	}
}

// take keeps a socket as the kernel does: the first one, and another one only if
// that is dead.
func (k *fake) take(fd int) {
	if k.socket != nil && !k.dead {
		return
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		k.t.Errorf("the descriptor in a message: %v", err)
		return
	}
	k.socket, k.dead = clientOf(k.t, unixConn(k.t, own)), false
}

// heard returns what was said since the last time.
func (k *fake) heard() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	said := k.said
	k.said = nil
	return said
}

// serving serves a front end until it ends by itself.
func serving(k *Kernel) <-chan error {
	served := make(chan error, 1)
	go func() { served <- k.Serve() }()
	return served
}

func ended(t *testing.T, served <-chan error) error {
	t.Helper()
	select {
	case err := <-served:
		return err
	case <-time.After(patience):
		t.Fatal("Serve did not end")
		return nil
	}
}

// same compares messages, each a hexadecimal text in which spaces do not count.
func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("the kernel was not told %s", want[i])
		case i >= len(want):
			t.Errorf("the kernel was also told %s", got[i])
		case squeeze(got[i]) != squeeze(want[i]):
			t.Errorf("the kernel was told\n%s, want\n%s", squeeze(got[i]), squeeze(want[i]))
		}
	}
}

// The bytes are what a Linux 6.1 and a Linux 6.12 took: see TestKernel.
func TestMessagesOfALife(t *testing.T) {
	kern, log := newFake(t), &bytes.Buffer{}
	dev := fronttest.New(1<<30, 4096)
	k, err := kern.door().attach(dev, options(log))
	if err != nil {
		t.Fatal(err)
	}
	same(t, kern.heard(), `01
		0c00 0200 0000004000000000
		0c00 0800 5a00000000000000
		0f00 0a00 746173756b693a6d643100 00
		1000 0780  0c00 0180  0800 0100 00000000
		0c00 0300 0010000000000000
		0c00 0400 0000000000000000
		0c00 0500 6d01000000000000
		0c00 0600 0000000000000000`)
	if got, err := os.ReadFile(filepath.Join(kern.dir, "nbd3", "queue", "io_timeout")); string(got) != "1000" {
		t.Errorf("the queue's time-out is %q (%v)", got, err)
	}
	if want := filepath.Join(kern.dir, "dev", "nbd3"); k.Path() != want || k.Index() != 3 {
		t.Errorf("the device is %s, number %d", k.Path(), k.Index())
	}
	served := serving(k)
	c := kern.socket
	c.request(0, cmdWrite, 1, 4096, 4096, fill(4096, 1)...)
	c.want(1, 0)
	c.request(0, cmdRead, 2, 4096, 4096)
	c.want(2, 0)
	if !bytes.Equal(c.get(4096), fill(4096, 1)) {
		t.Error("the kernel does not read what it wrote")
	}

	dev.Grow(1<<30 + 4096)
	if err := k.Grown(); err != nil {
		t.Fatal(err)
	}
	same(t, kern.heard(), `03 0800 0100 03000000
		0c00 0200 0010004000000000
		0f00 0a00 746173756b693a6d643100 00`)
	c.request(0, cmdWrite, 3, 1<<30, 4096, fill(4096, 1)...)
	c.want(3, 0)

	if err := k.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(t, kern.heard(), "02 0800 0100 03000000")
	if err := ended(t, served); err != nil {
		t.Errorf("Serve returned %v after Detach", err)
	}
	dev.Check(t)
	if log.Len() > 0 {
		t.Errorf("something was odd: %s", log)
	}
}

func TestAbort(t *testing.T) {
	kern, log := newFake(t), &bytes.Buffer{}
	dev := fronttest.New(mib, 512)
	dev.Hold(func(fronttest.Seen) bool { return true })
	k, err := kern.door().attach(dev, options(log))
	if err != nil {
		t.Fatal(err)
	}
	served := serving(k)
	kern.socket.request(0, cmdWrite, 1, 0, 512, fill(512, 1)...)
	eventually(t, "the write is held", func() bool { return dev.Held() == 1 })
	kern.heard()
	if err := k.Abort(); err != nil {
		t.Fatal(err)
	}
	same(t, kern.heard(), "02 0800 0100 03000000")
	if err := ended(t, served); !errors.Is(err, ErrAborted) {
		t.Errorf("Serve returned %v after Abort", err)
	}
	if err := k.Detach(t.Context()); err != nil {
		t.Errorf("detach after Abort: %v", err)
	}
	dev.Release() // what comes too late must harm nobody
	dev.Check(t)
}

func TestResume(t *testing.T) {
	kern, log := newFake(t), &bytes.Buffer{}
	dev := fronttest.New(mib, 512)
	first, err := kern.door().attach(dev, options(log))
	if err != nil {
		t.Fatal(err)
	}
	served := serving(first)
	first.ses.end(errors.New("the process is killed"))
	if err := ended(t, served); err == nil || !strings.Contains(err.Error(), "nbd3: the process is killed") {
		t.Errorf("Serve returned %v", err)
	}
	kern.heard()
	time.AfterFunc(50*time.Millisecond, func() { // the kernel notices it late
		kern.mu.Lock()
		defer kern.mu.Unlock()
		kern.dead = true
	})
	second, err := kern.door().resume(3, dev, options(log))
	if err != nil {
		t.Fatal(err)
	}
	said := kern.heard()
	if len(said) < 2 {
		t.Error("a socket that the kernel dropped was not noticed")
	}
	same(t, said[len(said)-1:], `03 0800 0100 03000000
		0c00 0200 0000100000000000
		0c00 0800 5a00000000000000
		0f00 0a00 746173756b693a6d643100 00
		1000 0780  0c00 0180  0800 0100 00000000`)
	served = serving(second)
	kern.socket.request(0, cmdFlush, 1, 0, 0)
	kern.socket.want(1, 0)
	if err := second.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, served); err != nil {
		t.Errorf("Serve returned %v after Detach", err)
	}
}

func TestWhatTheKernelRefuses(t *testing.T) {
	kern, log := newFake(t), &bytes.Buffer{}
	dev := fronttest.New(mib, 512)
	kern.refuse = genltest.Error(int(unix.EPERM))
	if _, err := kern.door().attach(dev, options(log)); !errors.Is(err, unix.EPERM) {
		t.Errorf("attach: %v", err)
	}
	kern.refuse = genltest.Error(int(unix.EINVAL))
	if _, err := kern.door().resume(3, dev, options(log)); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "attach anew") {
		t.Errorf("resume: %v", err)
	}
	kern.refuse = nil
	if err := os.Remove(filepath.Join(kern.dir, "dev", "nbd3")); err != nil {
		t.Fatal(err)
	}
	if _, err := kern.door().attach(dev, options(log)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("attach without a node: %v", err)
	}
	if said := kern.heard(); said[len(said)-1][:2] != "02" {
		t.Error("a device without a node stays attached")
	}
}

// What a process left behind is taken away without a request reaching a device.
func TestRemove(t *testing.T) {
	kern, log := newFake(t), &bytes.Buffer{}
	if err := kern.door().remove(t.Context(), "tasuki:md1"); err != nil {
		t.Errorf("remove of nothing: %v", err)
	}
	k, err := kern.door().attach(fronttest.New(mib, 512), options(log))
	if err != nil {
		t.Fatal(err)
	}
	k.ses.end(errors.New("the process is killed"))
	kern.dead = true
	kern.heard()
	if err := kern.door().remove(t.Context(), "tasuki:md1"); err != nil {
		t.Fatal(err)
	}
	same(t, kern.heard(), "02 0800 0100 03000000")
	if _, found := kern.door().find("tasuki:md1"); found {
		t.Error("the device is still there")
	}
}

// When the number has become another device's, that one is left alone.
func TestDeviceOfSomebodyElse(t *testing.T) {
	kern, log := newFake(t), &bytes.Buffer{}
	k, err := kern.door().attach(fronttest.New(mib, 512), options(log))
	if err != nil {
		t.Fatal(err)
	}
	served := serving(k)
	if index, found := kern.door().find("tasuki:md1"); !found || index != 3 {
		t.Errorf("the device is not found by its identity: %d, %v", index, found)
	}
	kern.identity("tasuki:md2")
	if _, found := kern.door().find("tasuki:md1"); found {
		t.Error("a device with another identity is found")
	}
	kern.heard()
	if err := errors.Join(k.Abort(), k.Detach(t.Context())); err != nil {
		t.Error(err)
	}
	same(t, kern.heard())
	if err := ended(t, served); !errors.Is(err, ErrAborted) {
		t.Errorf("Serve returned %v", err)
	}
}

func TestNoNBD(t *testing.T) {
	conn := genltest.Dial(func(genetlink.Message, netlink.Message) ([]genetlink.Message, error) {
		return nil, genltest.Error(int(unix.ENOENT))
	})
	if _, err := find(conn); err == nil || !strings.Contains(err.Error(), "modprobe nbd") {
		t.Errorf("the hint is missing: %v", err)
	}
}
