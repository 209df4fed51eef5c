package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// The procedures of libvirt's remote protocol that are used.
const (
	procOpen, procClose, procCreate, procDestroy, procLookup, procAuthList, procManagedSave, procState = 1, 2, 9, 12, 23, 66, 183, 212
)

// fakeLibvirt speaks as much of libvirt's protocol as the driver needs, for one
// domain.
type fakeLibvirt struct {
	socket string

	mu       sync.Mutex
	domain   string
	state    libvirt.DomainState
	reason   libvirt.DomainShutoffReason
	saved    bool
	stubborn bool            // a destroy is answered and not done
	silent   map[uint32]bool // procedures that are never answered
	broken   map[uint32]bool // procedures that are answered with an error
	called   []uint32
}

func newFakeLibvirt(t *testing.T) *fakeLibvirt {
	f := &fakeLibvirt{socket: filepath.Join(t.TempDir(), "libvirt-sock"), domain: "CLP-1", state: libvirt.DomainRunning, silent: map[uint32]bool{}, broken: map[uint32]bool{}}
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(c)
		}
	}()
	return f
}

func (f *fakeLibvirt) serve(c net.Conn) {
	defer c.Close()
	for {
		var length uint32
		if binary.Read(c, binary.BigEndian, &length) != nil || length < 28 || length > 1<<16 {
			return
		}
		packet := make([]byte, length-4)
		if _, err := io.ReadFull(c, packet); err != nil {
			return
		}
		proc := binary.BigEndian.Uint32(packet[8:])
		status, body, silent := f.answer(proc, packet[24:])
		if silent {
			continue
		}
		var out bytes.Buffer
		header := []uint32{uint32(28 + len(body)), binary.BigEndian.Uint32(packet[0:]), 1, proc, 1, binary.BigEndian.Uint32(packet[16:]), status}
		binary.Write(&out, binary.BigEndian, header)
		out.Write(body)
		if _, err := c.Write(out.Bytes()); err != nil {
			return
		}
	}
}

// text is a string of XDR.
func text(s string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(s)))
	b = append(b, s...)
	return append(b, make([]byte, (4-len(s)%4)%4)...)
}

func numbers(ns ...uint32) (b []byte) {
	for _, n := range ns {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

func failure(code libvirt.ErrorNumber, message string) []byte {
	return bytes.Join([][]byte{numbers(uint32(code), 10, 1), text(message), numbers(2)}, nil)
}

func (f *fakeLibvirt) answer(proc uint32, args []byte) (status uint32, body []byte, silent bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.called = append(f.called, proc)
	switch {
	case f.silent[proc]:
		return 0, nil, true
	case f.broken[proc]:
		return 1, failure(libvirt.ErrInternalError, "it hurts"), false
	}
	switch proc {
	case procAuthList:
		return 0, numbers(1, 0), false
	case procLookup:
		if !bytes.Equal(args, text(f.domain)) {
			return 1, failure(libvirt.ErrNoDomain, "Domain not found"), false
		}
		return 0, bytes.Join([][]byte{text(f.domain), make([]byte, 16), numbers(7)}, nil), false
	case procState:
		return 0, numbers(uint32(f.state), uint32(f.reason)), false
	case procManagedSave:
		if f.saved {
			return 0, numbers(1), false
		}
		return 0, numbers(0), false
	case procDestroy:
		if !f.stubborn {
			f.state, f.reason = libvirt.DomainShutoff, libvirt.DomainShutoffDestroyed
		}
	case procCreate:
		f.state, f.reason = libvirt.DomainRunning, 0
	case procOpen, procClose:
	default:
		return 1, failure(libvirt.ErrNoSupport, "not in this test"), false
	}
	return 0, nil, false
}

func (f *fakeLibvirt) did(proc uint32) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.called {
		if p == proc {
			n++
		}
	}
	return n
}

func (f *fakeLibvirt) guest(t *testing.T) *Switch {
	t.Helper()
	s, err := New(config.Guest{Name: "CLP-1", Kind: config.GuestLibvirt, Target: "CLP-1"}, Options{Libvirt: f.socket})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func do(t *testing.T, s *Switch, a cluster.PowerAction, within time.Duration) (cluster.Power, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return s.Do(ctx, a)
}

const soon = 10 * time.Second // not reached unless something is wrong

func TestLibvirt(t *testing.T) {
	f := newFakeLibvirt(t)
	s := f.guest(t)
	for i, step := range []struct {
		do   cluster.PowerAction
		want cluster.Power
	}{
		{cluster.PowerStatus, cluster.On}, {cluster.PowerOff, cluster.Off}, {cluster.PowerStatus, cluster.Off}, {cluster.PowerOff, cluster.Off},
		{cluster.PowerOn, cluster.On}, {cluster.PowerStatus, cluster.On}, {cluster.PowerOn, cluster.On},
	} {
		if got, err := do(t, s, step.do, soon); err != nil || got != step.want {
			t.Errorf("step %d, %s: %q, %v", i, step.do, got, err)
		}
	}
	if d, c := f.did(procDestroy), f.did(procCreate); d != 1 || c != 1 {
		t.Errorf("destroyed %d times, created %d times", d, c)
	}
	if _, err := do(t, s, "reboot", soon); err == nil || f.did(procDestroy) != 1 {
		t.Errorf("an unknown action: %v", err)
	}
}

// Whatever leaves a doubt is an error, never "off".
func TestLibvirtDoubts(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*fakeLibvirt)
		want string
	}{
		"no such domain":       {func(f *fakeLibvirt) { f.domain = "other" }, "no domain"},
		"migrated":             {func(f *fakeLibvirt) { f.state, f.reason = libvirt.DomainShutoff, libvirt.DomainShutoffMigrated }, "migrated"},
		"saved":                {func(f *fakeLibvirt) { f.state, f.reason = libvirt.DomainShutoff, libvirt.DomainShutoffSaved }, "saved"},
		"saved, and restarted": {func(f *fakeLibvirt) { f.state, f.saved = libvirt.DomainShutoff, true }, "saved"},
		"no state":             {func(f *fakeLibvirt) { f.state = libvirt.DomainNostate }, "does not know"},
		"a state of tomorrow":  {func(f *fakeLibvirt) { f.state = 42 }, "does not know"},
		"state fails":          {func(f *fakeLibvirt) { f.broken[procState] = true }, "it hurts"},
		"lookup fails":         {func(f *fakeLibvirt) { f.broken[procLookup] = true }, "it hurts"},
		"save fails":           {func(f *fakeLibvirt) { f.state, f.broken[procManagedSave] = libvirt.DomainShutoff, true }, "it hurts"},
		"refuses":              {func(f *fakeLibvirt) { f.broken[procOpen] = true }, "it hurts"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeLibvirt(t)
			c.set(f)
			for _, a := range []cluster.PowerAction{cluster.PowerStatus, cluster.PowerOff} {
				got, err := do(t, f.guest(t), a, soon)
				if got != "" || err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: %q, %v", a, got, err)
				}
			}
			if f.did(procDestroy) != 0 {
				t.Error("it was destroyed in doubt")
			}
		})
	}
}

// What has power in any way has power.
func TestLibvirtPowered(t *testing.T) {
	for _, st := range []libvirt.DomainState{libvirt.DomainRunning, libvirt.DomainBlocked, libvirt.DomainPaused, libvirt.DomainShutdown, libvirt.DomainCrashed, libvirt.DomainPmsuspended} {
		f := newFakeLibvirt(t)
		f.state = st
		if got, err := do(t, f.guest(t), cluster.PowerStatus, soon); err != nil || got != cluster.On {
			t.Errorf("%v: %q, %v", st, got, err)
		}
		if got, err := do(t, f.guest(t), cluster.PowerOff, soon); err != nil || got != cluster.Off || f.did(procDestroy) != 1 {
			t.Errorf("%v: %q, %v", st, got, err)
		}
	}
}

// A libvirt that hangs, lies about a destroy, or is not there, is a failure
// within the time that was given.
func TestLibvirtHangs(t *testing.T) {
	const short = 200 * time.Millisecond
	for _, proc := range []uint32{procAuthList, procOpen, procLookup, procState, procDestroy} {
		f := newFakeLibvirt(t)
		f.silent[proc] = true
		if got, err := do(t, f.guest(t), cluster.PowerOff, short); err == nil || got == cluster.Off {
			t.Errorf("procedure %d hangs: %q, %v", proc, got, err)
		}
	}
	f := newFakeLibvirt(t)
	f.stubborn = true
	if got, err := do(t, f.guest(t), cluster.PowerOff, short); err == nil || got == cluster.Off || !strings.Contains(err.Error(), "CLP-1") {
		t.Errorf("a destroy that does nothing: %q, %v", got, err)
	}
	f = newFakeLibvirt(t)
	f.socket += ".gone"
	if got, err := do(t, f.guest(t), cluster.PowerStatus, soon); err == nil || got != "" {
		t.Errorf("no libvirt: %q, %v", got, err)
	}
}

func TestLabOutsideOfOne(t *testing.T) {
	if _, err := New(config.Guest{Name: "CLP-1", Kind: config.GuestLab, Target: "CLP-1"}, Options{Libvirt: "/x"}); err == nil || !strings.Contains(err.Error(), "lab") {
		t.Errorf("got %v", err)
	}
}
