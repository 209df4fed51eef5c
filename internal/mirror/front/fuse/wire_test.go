package fuse

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
)

// packet is a request as the kernel writes it: the header and the arguments,
// which are uint32, uint64 or bytes.
func packet(op opcode, node uint64, args ...any) []byte {
	ne := binary.NativeEndian
	b := make([]byte, inHeader)
	ne.PutUint32(b[4:], uint32(op))
	ne.PutUint64(b[8:], 77)
	ne.PutUint64(b[16:], node)
	for _, a := range args {
		switch a := a.(type) {
		case uint32:
			b = ne.AppendUint32(b, a)
		case uint64:
			b = ne.AppendUint64(b, a)
		case []byte:
			b = append(b, a...)
		}
	}
	ne.PutUint32(b, uint32(len(b)))
	return b
}

func readPacket(off uint64, n uint32) []byte {
	return packet(opRead, nodeFile, uint64(0), off, n, uint32(0), uint64(0), uint32(0), uint32(0))
}

func writePacket(off uint64, n uint32, data []byte) []byte {
	return packet(opWrite, nodeFile, uint64(0), off, n, uint32(0), uint64(0), uint32(0), uint32(0), data)
}

func zeroPacket(off, n uint64, mode uint32) []byte {
	return packet(opFallocate, nodeFile, uint64(0), off, n, mode, uint32(0))
}

func initPacket(minor uint32, flags uint64) []byte {
	return packet(opInit, 0, uint32(protocolMajor), minor, uint32(0), uint32(flags), uint32(flags>>32), make([]byte, 44))
}

// desk is a Front without a kernel: packets go in, answers come out, into a file.
type desk struct {
	*Front
	t testing.TB
}

func newDesk(t testing.TB, d front.Device) *desk {
	t.Helper()
	fd, err := unix.MemfdCreate("answers", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := &Front{dev: d, fd: fd, conn: keep.Connection{Transfer: keep.Transfer}}
	if f.slots, err = newSlots(2, keep.Transfer, f.done, func() {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.slots.close()
		if f.slots.memory != nil {
			t.Error("a slot was not put back")
		}
		_ = unix.Close(fd)
	})
	return &desk{f, t}
}

// ask hands a packet over as a thread does, and returns the answer: nothing and
// false if there is none.
func (d *desk) ask(p []byte) (body []byte, err syscall.Errno, answered bool) {
	d.t.Helper()
	s := d.slots.get()
	n := copy(s.in(), p)
	d.take(s, s.in()[:n])
	b := d.answers()
	if len(b) == 0 {
		return nil, 0, false
	}
	ne := binary.NativeEndian
	if n = len(b); n < outHeader || int(ne.Uint32(b)) != n || len(p) >= inHeader && ne.Uint64(b[8:]) != ne.Uint64(p[8:]) {
		d.t.Fatalf("the answer % x does not belong to the request", b[:min(n, outHeader)])
	}
	return b[outHeader:], syscall.Errno(-int32(ne.Uint32(b[4:]))), true
}

// answers takes what was written.
func (d *desk) answers() []byte {
	d.t.Helper()
	n, err := unix.Seek(d.fd, 0, io.SeekEnd)
	b := make([]byte, n)
	_, read := unix.Pread(d.fd, b, 0)
	_, back := unix.Seek(d.fd, 0, io.SeekStart)
	if err := errors.Join(err, read, back, unix.Ftruncate(d.fd, 0)); err != nil {
		d.t.Fatal(err)
	}
	return b
}

func TestBounds(t *testing.T) {
	const size = 1 << 20
	for name, tt := range map[string]struct {
		packet []byte
		want   syscall.Errno
	}{
		"the last sector":                  {readPacket(size-4096, 4096), 0},
		"one byte beyond the end":          {readPacket(size-4096, 4097), unix.EINVAL},
		"one sector beyond the end":        {readPacket(size-4096, 8192), unix.EINVAL},
		"behind the end":                   {readPacket(size, 4096), unix.EINVAL},
		"far behind the end":               {readPacket(1<<63, 4096), unix.EINVAL},
		"an offset that wraps":             {readPacket(^uint64(0)&^4095, 4096), unix.EINVAL},
		"nothing":                          {readPacket(0, 0), unix.EINVAL},
		"not a sector":                     {readPacket(0, 512), unix.EINVAL},
		"not at a sector":                  {readPacket(512, 4096), unix.EINVAL},
		"the longest":                      {readPacket(0, keep.Transfer), 0},
		"too long":                         {readPacket(0, keep.Transfer+4096), unix.EINVAL},
		"as long as can be":                {readPacket(0, 1<<32-4096), unix.EINVAL},
		"a write":                          {writePacket(8192, 4096, make([]byte, 4096)), 0},
		"a write beyond the end":           {writePacket(size, 4096, make([]byte, 4096)), unix.EINVAL},
		"a write with less data than told": {writePacket(0, 8192, make([]byte, 4096)), unix.EPROTO},
		"a write with more data than told": {writePacket(0, 4096, make([]byte, 8192)), unix.EPROTO},
		"all zero":                         {zeroPacket(0, size, modePunch), 0},
		"zero beyond the end":              {zeroPacket(4096, size, modePunch), unix.EINVAL},
		"zero for ever":                    {zeroPacket(0, ^uint64(0)&^4095, modePunch), unix.EINVAL},
		"zero that wraps":                  {zeroPacket(1<<63, 1<<63, modePunch), unix.EINVAL},
		"allocation":                       {zeroPacket(0, 4096, 0), unix.EOPNOTSUPP},
		"collapse":                         {zeroPacket(0, 4096, unix.FALLOC_FL_COLLAPSE_RANGE), unix.EOPNOTSUPP},
		"half a header":                    {readPacket(0, 4096)[:20], unix.EPROTO},
		"half of the arguments":            {packet(opRead, nodeFile, uint64(0), uint64(0)), unix.EPROTO},
		"another length than told":         {readPacket(0, 4096)[:79], unix.EPROTO},
		"another file":                     {packet(opRead, 3, uint64(0), uint64(0), uint32(4096), make([]byte, 20)), unix.EINVAL},
		"another operation":                {packet(22, nodeFile, make([]byte, 16)), unix.ENOSYS},
	} {
		t.Run(name, func(t *testing.T) {
			dev := fronttest.New(size, 4096)
			_, err, answered := newDesk(t, dev).ask(tt.packet)
			if !answered || err != tt.want {
				t.Errorf("answered %v with %v, want %v", answered, err, tt.want)
			}
			if got := len(dev.Seen()); (got == 1) != (tt.want == 0) {
				t.Errorf("%d requests reached the device", got)
			}
			dev.Check(t)
		})
	}
}

func TestTheFile(t *testing.T) {
	const size = 3 << 20
	ne := binary.NativeEndian
	attr := func(b []byte) (node, size uint64, mode uint32) {
		return ne.Uint64(b), ne.Uint64(b[8:]), ne.Uint32(b[60:])
	}
	for name, tt := range map[string]struct {
		packet []byte
		err    syscall.Errno
		length int
		check  func(b []byte) bool
	}{
		"lookup": {packet(opLookup, nodeRoot, []byte("disk\x00")), 0, 128, func(b []byte) bool {
			n, s, m := attr(b[40:])
			return ne.Uint64(b) == nodeFile && n == nodeFile && s == size && m == unix.S_IFREG|0o600
		}},
		"lookup of another": {packet(opLookup, nodeRoot, []byte("disk2\x00")), unix.ENOENT, 0, nil},
		"lookup in a file":  {packet(opLookup, nodeFile, []byte("disk\x00")), unix.ENOENT, 0, nil},
		"endless name":      {packet(opLookup, nodeRoot, []byte("disk")), unix.EPROTO, 0, nil},
		"getattr": {packet(opGetattr, nodeFile, make([]byte, 16)), 0, 104, func(b []byte) bool {
			n, s, m := attr(b[16:])
			return ne.Uint64(b) == 0 && n == nodeFile && s == size && m == unix.S_IFREG|0o600
		}},
		"getattr of the root": {packet(opGetattr, nodeRoot, make([]byte, 16)), 0, 104, func(b []byte) bool {
			n, s, m := attr(b[16:])
			return n == nodeRoot && s == 0 && m == unix.S_IFDIR|0o700
		}},
		"truncate":     {packet(opSetattr, nodeFile, uint32(setattrSize), make([]byte, 84)), unix.EPERM, 0, nil},
		"touch":        {packet(opSetattr, nodeFile, uint32(1<<5), make([]byte, 84)), 0, 104, nil},
		"open":         {packet(opOpen, nodeFile, make([]byte, 8)), 0, 16, func(b []byte) bool { return ne.Uint32(b[8:])&openDirectIO != 0 }},
		"open of root": {packet(opOpen, nodeRoot, make([]byte, 8)), unix.EISDIR, 0, nil},
		"close":        {packet(opRelease, nodeFile, make([]byte, 24)), 0, 0, nil},
		"statfs":       {packet(opStatfs, nodeFile), 0, 80, func(b []byte) bool { return ne.Uint32(b[40:]) == 4096 }},
		"init": {initPacket(45, needFlags|1<<40), 0, 64, func(b []byte) bool {
			return ne.Uint32(b) == 7 && ne.Uint32(b[4:]) == protocolMinor && ne.Uint32(b[20:]) == keep.Transfer &&
				ne.Uint16(b[28:]) == maxPages && uint64(ne.Uint32(b[12:]))|uint64(ne.Uint32(b[32:]))<<32 == needFlags
		}},
		"init of 6.8":        {initPacket(39, needFlags&^flagResend), unix.EPROTO, 0, nil},
		"init of 2.6":        {packet(opInit, 0, uint32(protocolMajor), uint32(8), uint32(0), uint32(flagAsyncDIO)), unix.EPROTO, 0, nil},
		"init of the future": {packet(opInit, 0, uint32(8), make([]byte, 60)), unix.EPROTO, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			body, err, answered := newDesk(t, fronttest.New(size, 512)).ask(tt.packet)
			if !answered || err != tt.err || len(body) != tt.length {
				t.Fatalf("answered %v with %v and %d bytes, want %v and %d", answered, err, len(body), tt.err, tt.length)
			}
			if tt.check != nil && !tt.check(body) {
				t.Errorf("the answer is % x", body)
			}
		})
	}
}

func TestWhatNeedsNoAnswer(t *testing.T) {
	for _, op := range []opcode{opForget, opBatchForget, opInterrupt} {
		if _, _, answered := newDesk(t, fronttest.New(1<<20, 512)).ask(packet(op, nodeFile, uint64(1), uint64(1))); answered {
			t.Errorf("operation %d was answered", op)
		}
	}
}

func TestDataGoesBothWays(t *testing.T) {
	dev := fronttest.New(1<<20, 512)
	d := newDesk(t, dev)
	data := bytes.Repeat([]byte("tasuki! "), 128)
	if body, err, _ := d.ask(writePacket(4096, 1024, data)); err != 0 || binary.NativeEndian.Uint32(body) != 1024 {
		t.Fatalf("write: % x, %v", body, err)
	}
	if body, err, _ := d.ask(readPacket(4096, 1024)); err != 0 || !bytes.Equal(body, data) {
		t.Errorf("read %d bytes, %v", len(body), err)
	}
	resent := readPacket(4096, 1024)
	binary.NativeEndian.PutUint64(resent[8:], 77|1<<63)
	if body, err, _ := d.ask(resent); err != 0 || !bytes.Equal(body, data) {
		t.Errorf("read once more: %d bytes, %v", len(body), err)
	}
	dev.Check(t)
}

// The kernel never asks again for what was answered by ENOSYS, and takes fsync for
// done from then on.
func TestAFlushNeverFailsForEver(t *testing.T) {
	for _, e := range []syscall.Errno{unix.ENOSYS, 1000, 1 << 20} {
		dev := fronttest.New(1<<20, 512)
		dev.Fail = func(fronttest.Seen) syscall.Errno { return e }
		if _, err, _ := newDesk(t, dev).ask(packet(opFsync, nodeFile, make([]byte, 16))); err != unix.EIO {
			t.Errorf("a flush that failed with %d was answered with %v, want %v", e, err, unix.EIO)
		}
	}
}

// instant is a device that does nothing at once.
type instant struct{ front.Device }

func (instant) Do(r *front.Request) { r.Done(r, 0) }

func TestNoRequestAllocates(t *testing.T) {
	f := newDesk(t, instant{fronttest.New(1<<20, 512)})
	for name, p := range map[string][]byte{
		"read": readPacket(0, 4096), "write": writePacket(0, 4096, make([]byte, 4096)), "flush": packet(opFsync, nodeFile, make([]byte, 16)),
	} {
		n := testing.AllocsPerRun(100, func() {
			s := f.slots.get()
			f.take(s, s.in()[:copy(s.in(), p)])
		})
		if len(f.answers()) == 0 {
			t.Errorf("a %s was not answered", name)
		}
		if n != 0 {
			t.Errorf("a %s allocates %v times", name, n)
		}
	}
}

func TestClosedSlots(t *testing.T) {
	over := make(chan struct{})
	p, err := newSlots(1, 4096, func(*front.Request, syscall.Errno) {}, func() { close(over) })
	if err != nil {
		t.Fatal(err)
	}
	s := p.get()
	got := make(chan *slot)
	go func() { got <- p.get() }()
	p.close()
	if again := <-got; again != nil {
		t.Error("a slot of closed slots")
	}
	copy(s.data(4096), "the device still has it")
	select {
	case <-over:
		t.Fatal("the memory went while a slot was out")
	default:
	}
	p.put(s)
	select {
	case <-over:
	case <-time.After(limit):
		t.Error("the memory stays")
	}
}

func FuzzRequest(f *testing.F) {
	for _, p := range [][]byte{
		readPacket(0, 4096), writePacket(512, 512, make([]byte, 512)), zeroPacket(0, 4096, modeZero), initPacket(45, needFlags),
		packet(opLookup, nodeRoot, []byte("disk\x00")), packet(opFsync, nodeFile, make([]byte, 16)), packet(opForget, nodeFile, uint64(1)), nil,
	} {
		f.Add(p)
	}
	dev := fronttest.New(1<<20, 512)
	d := newDesk(f, dev)
	f.Fuzz(func(t *testing.T, p []byte) {
		d.t = t
		p = p[:min(len(p), writeIn+keep.Transfer)] // the kernel cannot give more
		if len(p) >= 4 && binary.NativeEndian.Uint32(p)%2 == 0 {
			p = slices.Clone(p)
			binary.NativeEndian.PutUint32(p, uint32(len(p))) // so that most are not refused at once
		}
		_, _, answered := d.ask(p)
		if silent := len(p) >= inHeader && opcode(binary.NativeEndian.Uint32(p[4:])).silent(); answered == silent {
			t.Errorf("answered: %v, want %v", answered, !silent)
		}
		dev.Check(t)
	})
}
