package nbd

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fronttest"
)

const (
	mib  = 1 << 20
	eio  = uint32(syscall.EIO)
	inv  = uint32(syscall.EINVAL)
	full = uint32(syscall.ENOSPC)
)

func TestHandshakeTellsWhatTheExportIs(t *testing.T) {
	o := offered(t, fronttest.New(64*mib, 4096))
	c := o.dial(t)
	c.hello()
	c.option(optList, nil)
	if kind, data := c.answer(optList); kind != ansServer || string(data) != "\x00\x00\x00\x03md1" {
		t.Errorf("the list has %d %q", kind, data)
	}
	if kind, _ := c.answer(optList); kind != ansAck {
		t.Errorf("the list ends with %d", kind)
	}
	for _, name := range []string{"md1", ""} {
		c.option(optInfo, wish(name))
		kind, data := c.answer(optInfo)
		want := []byte{0, infoExport, 0, 0, 0, 0, 4, 0, 0, 0, 0x01, 0x6d}
		if kind != ansInfo || !bytes.Equal(data, want) {
			t.Errorf("export %q: %d %x, want %x", name, kind, data, want)
		}
		kind, data = c.answer(optInfo)
		want = []byte{0, infoBlockSize, 0, 0, 0x10, 0, 0, 0, 0x10, 0, 2, 0, 0, 0}
		if kind != ansInfo || !bytes.Equal(data, want) {
			t.Errorf("sizes of %q: %d %x, want %x", name, kind, data, want)
		}
		if kind, _ := c.answer(optInfo); kind != ansAck {
			t.Errorf("the information ends with %d", kind)
		}
	}
	c.option(optAbort, nil)
	if kind, _ := c.answer(optAbort); kind != ansAck {
		t.Errorf("abort is answered with %d", kind)
	}
	c.ends()
}

func TestHandshakeRefusesPolitely(t *testing.T) {
	o := offered(t, fronttest.New(mib, 512))
	c := o.dial(t)
	c.hello()
	const startTLS, structured, listMeta, extended, unheardOf = 5, 8, 9, 11, 4711
	for _, tt := range []struct {
		option uint32
		data   []byte
		want   uint32
	}{
		{startTLS, nil, ansUnsup},
		{structured, nil, ansUnsup},
		{listMeta, fill(40, 1), ansUnsup},
		{extended, nil, ansUnsup},
		{unheardOf, fill(mostOption, 1), ansUnsup},
		{optList, []byte("x"), ansInvalid},
		{optGo, nil, ansInvalid},
		{optGo, wish("md1")[:8], ansInvalid},
		{optGo, append(wish("md1"), 0), ansInvalid},
		{optInfo, []byte{0xff, 0xff, 0xff, 0xff, 0, 0}, ansInvalid},
		{optGo, wish("md2"), ansUnknown},
	} {
		c.option(tt.option, tt.data)
		if kind, _ := c.answer(tt.option); kind != tt.want {
			t.Errorf("option %d with %.10q is answered with %#x, want %#x", tt.option, tt.data, kind, tt.want)
		}
	}
	c.option(optGo, wish("")) // and goes on
	if kind, _ := c.answer(optGo); kind != ansInfo {
		t.Errorf("GO after refusals is answered with %#x", kind)
	}
}

func TestOldHandshake(t *testing.T) {
	o := offered(t, fronttest.New(mib, 512))
	for flags, padding := range map[uint32]int{fixedNewstyle: 124, fixedNewstyle | noZeroes: 0} {
		c := o.dial(t)
		c.get(18)
		c.put(flags)
		c.option(optExportName, []byte("md1"))
		got := c.get(10 + padding)
		if size := binary.BigEndian.Uint64(got); size != mib {
			t.Errorf("the size is %d", size)
		}
		c.request(0, cmdFlush, 1, 0, 0)
		c.want(1, 0)
	}
	c := o.dial(t)
	c.hello()
	c.option(optExportName, []byte("md2"))
	c.ends()
}

func TestRequestsReachTheDevice(t *testing.T) {
	o := offered(t, fronttest.New(64*mib, 512))
	c := o.ready(t)
	data := fill(8192, 3)
	c.request(0, cmdWrite, 1, 4096, 8192, data...)
	c.want(1, 0)
	c.request(flagFUA, cmdWrite, 2, 512, 512, data[:512]...)
	c.want(2, 0)
	c.request(0, cmdRead, 3, 4096, 8192)
	c.want(3, 0)
	if got := c.get(8192); !bytes.Equal(got, data) {
		t.Error("what was written is not what is read")
	}
	c.request(0, cmdFlush, 4, 0, 0)
	c.want(4, 0)
	c.request(0, cmdTrim, 5, 0, 48*mib)
	c.want(5, 0)
	c.request(flagFUA, cmdTrim, 6, 0, 512)
	c.want(6, 0)
	c.request(0, cmdWriteZeroes, 7, mib, 48*mib)
	c.want(7, 0)
	c.request(flagNoHole|flagFUA, cmdWriteZeroes, 8, mib, 512)
	c.want(8, 0)
	c.request(0, cmdDisconnect, 9, 0, 0)
	c.ends()
	want := []fronttest.Seen{
		{Op: front.Write, Offset: 4096, Length: 8192},
		{Op: front.Write, Offset: 512, Length: 512, FUA: true},
		{Op: front.Read, Offset: 4096, Length: 8192},
		{Op: front.Flush},
		{Op: front.Discard, Length: 48 * mib},
		{Op: front.Discard, Length: 512},
		{Op: front.Flush}, // the FUA of the discard
		{Op: front.Zero, Offset: mib, Length: 48 * mib},
		{Op: front.Zero, Offset: mib, Length: 512, NoHole: true},
		{Op: front.Flush},
	}
	if got := o.Seen(); !slices.Equal(got, want) {
		t.Errorf("the device saw %v\nwant %v", got, want)
	}
}

func TestLongRequestsAreCut(t *testing.T) {
	o := offered(t, fronttest.New(64*mib, 512))
	c := o.ready(t)
	for i, n := range []int{MaxRequest, 1306624, mib, mib + 512} {
		data := fill(n, byte(i))
		c.request(flagFUA, cmdWrite, 1, 512, uint32(n), data...)
		c.want(1, 0)
		for _, s := range o.Seen() {
			if s.Length > front.MaxLength || !s.FUA {
				t.Errorf("a piece of %d bytes: %v", n, s)
			}
		}
		o.Forget()
		c.request(0, cmdRead, 2, 512, uint32(n))
		c.want(2, 0)
		if !bytes.Equal(c.get(n), data) {
			t.Errorf("what is read of %d bytes is not what was written", n)
		}
		o.Forget()
	}
}

func TestOneFailedPieceFailsTheRequest(t *testing.T) {
	dev := fronttest.New(8*mib, 512)
	dev.Fail = func(s fronttest.Seen) syscall.Errno {
		if s.Offset == mib {
			return syscall.ETIMEDOUT
		}
		return 0
	}
	o := offered(t, dev)
	c := o.ready(t)
	c.request(0, cmdRead, 1, 0, 3*mib)
	c.want(1, eio) // and no data follows
	c.request(0, cmdRead, 2, 2*mib, 512)
	c.want(2, 0)
	c.get(512)
	c.request(flagFUA, cmdWriteZeroes, 3, mib, 512)
	c.want(3, eio)
	if n := o.Count(front.Flush); n != 0 {
		t.Errorf("%d flushes follow a failure", n)
	}
}

func TestErrorsOfTheDevice(t *testing.T) {
	for err, want := range map[syscall.Errno]uint32{
		syscall.EIO: 5, syscall.ENOSPC: 28, syscall.EDQUOT: 28, syscall.EROFS: 1, syscall.ENOMEM: 12,
		syscall.EOPNOTSUPP: 22, syscall.ESHUTDOWN: 108, syscall.ENODEV: 5, 0: 0,
	} {
		if got := wireError(err); got != want {
			t.Errorf("%v becomes %d, want %d", err, got, want)
		}
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	o := offered(t, fronttest.New(mib, 4096))
	c := o.ready(t)
	const dontFragment, fastZero, blockStatus = 1 << 2, 1 << 4, 7
	for name, tt := range map[string]struct {
		flags, command uint16
		offset         uint64
		length         uint32
		want           uint32
	}{
		"read beyond the end":      {0, cmdRead, mib, 4096, inv},
		"read over the end":        {0, cmdRead, mib - 4096, 8192, inv},
		"read at the end of all":   {0, cmdRead, 1<<64 - 4096, 4096, inv},
		"read too much":            {0, cmdRead, 0, MaxRequest + 4096, inv},
		"read nothing":             {0, cmdRead, 0, 0, inv},
		"read half a sector":       {0, cmdRead, 0, 512, inv},
		"read between sectors":     {0, cmdRead, 512, 4096, inv},
		"read, a strange flag":     {dontFragment, cmdRead, 0, 4096, inv},
		"write over the end":       {0, cmdWrite, mib - 4096, 8192, full},
		"write beyond the end":     {0, cmdWrite, 1 << 40, MaxRequest, full},
		"write between sectors":    {0, cmdWrite, 2048, 4096, inv},
		"write, a strange flag":    {flagNoHole, cmdWrite, 0, 4096, inv},
		"trim over the end":        {0, cmdTrim, 4096, mib, inv},
		"zeroes over the end":      {0, cmdWriteZeroes, 4096, mib, full},
		"zeroes, as long as it is": {0, cmdWriteZeroes, 0, 1<<32 - 4096, full},
		"zeroes, fast":             {fastZero, cmdWriteZeroes, 0, 4096, inv},
		"flush, a strange flag":    {dontFragment, cmdFlush, 0, 0, inv},
		"cache":                    {0, cmdCache, 0, 4096, inv},
		"block status":             {0, blockStatus, 0, 4096, inv},
		"unheard of":               {0, 4711, 0, 4096, inv},
	} {
		var data []byte
		if tt.command == cmdWrite {
			data = fill(int(tt.length), 9)
		}
		c.request(tt.flags, tt.command, 7, tt.offset, tt.length, data...)
		if _, err := c.reply(); err != tt.want {
			t.Errorf("%s: error %d, want %d", name, err, tt.want)
		}
	}
	c.request(0, cmdRead, 8, 0, 4096)
	c.want(8, 0)
	if !bytes.Equal(c.get(4096), make([]byte, 4096)) {
		t.Error("a refused write changed something")
	}
	if n := len(o.Seen()); n != 1 {
		t.Errorf("the device saw %d requests, of which it should see one", n)
	}
}

func TestRepliesComeWhenTheDeviceIsReady(t *testing.T) {
	o := offered(t, fronttest.New(mib, 512))
	o.Hold(func(s fronttest.Seen) bool { return s.Op == front.Write })
	c := o.ready(t)
	for i := range uint64(3) {
		c.request(0, cmdWrite, i, 512*i, 512, fill(512, byte(i))...)
	}
	c.request(0, cmdFlush, 99, 0, 0)
	c.want(99, 0)
	eventually(t, "three writes are held", func() bool { return o.Held() == 3 })
	o.Release() // the latest first
	var got []uint64
	for range 3 {
		cookie, _ := c.reply()
		got = append(got, cookie)
	}
	if slices.Equal(got, []uint64{0, 1, 2}) {
		t.Error("the replies are in the order of the requests, not of their completion")
	}
}

func TestConnectionsShareTheDevice(t *testing.T) {
	o := offered(t, fronttest.New(mib, 512))
	a, b := o.ready(t), o.ready(t)
	a.request(0, cmdWrite, 1, 0, 512, fill(512, 5)...)
	a.want(1, 0)
	b.request(0, cmdRead, 2, 0, 512)
	b.want(2, 0)
	if !bytes.Equal(b.get(512), fill(512, 5)) {
		t.Error("one connection does not see what the other one wrote")
	}
	var more []*client
	for range mostConnections - 2 {
		more = append(more, o.ready(t))
	}
	o.dial(t).ends() // one too many
	_ = more[0].Close()
	eventually(t, "there is room for another connection", func() bool {
		o.server.mu.Lock()
		defer o.server.mu.Unlock()
		return len(o.server.open) <= mostConnections
	})
	o.ready(t)
}

func TestRequestsUnderWayAreBounded(t *testing.T) {
	o := offered(t, fronttest.New(64*mib, 512))
	o.Hold(func(s fronttest.Seen) bool { return true })
	small, large := o.ready(t), o.ready(t)
	sent := make(chan struct{})
	go func() { // more than the sockets take, so it blocks
		defer close(sent)
		for i := range uint64(depth + 100) {
			small.request(0, cmdFlush, i, 0, 0)
		}
	}()
	eventually(t, "as many requests are held as may be", func() bool { return o.Held() == depth })
	<-sent
	for i := range uint64(3) {
		large.request(0, cmdRead, i, 0, MaxRequest)
	}
	pieces := memory / front.MaxLength
	eventually(t, "as much memory is used as may be", func() bool { return o.Held() == depth+pieces })
	o.Release()
	for range depth + 100 {
		small.reply()
	}
	for range 3 {
		large.reply()
		large.get(MaxRequest)
	}
	if n := o.Count(front.Read); n != 3*MaxRequest/front.MaxLength {
		t.Errorf("%d pieces were read", n)
	}
}

// A client that does not read its replies must hold up nobody: least of all the
// goroutine that completes its requests.
func TestAClientThatDoesNotRead(t *testing.T) {
	dev := fronttest.New(64*mib, 512)
	dev.Delay = func(fronttest.Seen) time.Duration { return 0 }
	o := offered(t, dev)
	lazy, busy := o.ready(t), o.ready(t)
	for i := range uint64(40) {
		lazy.request(0, cmdRead, i, 0, mib)
	}
	eventually(t, "all of them are read", func() bool { return o.Count(front.Read) == 40 })
	busy.request(0, cmdRead, 1, 0, 4096)
	busy.want(1, 0)
	busy.get(4096)
	for range 40 {
		lazy.reply()
		lazy.get(mib)
	}
}

func TestMisuseEndsThatConnectionOnly(t *testing.T) {
	o := offered(t, fronttest.New(mib, 512))
	good := o.ready(t)
	for name, misuse := range map[string]func(c *client){
		"unknown flags of the client": func(c *client) { c.get(18); c.put(uint32(1 << 7)) },
		"an option without magic":     func(c *client) { c.hello(); c.put("IHAVEHAT", uint32(optGo), uint32(0)) },
		"an option that is too long":  func(c *client) { c.hello(); c.put("IHAVEOPT", uint32(optGo), uint32(1<<31)) },
		"half an option": func(c *client) {
			c.hello()
			c.put("IHAVEOPT", uint32(optGo), uint32(100), "half")
			closeWrite(c)
		},
	} {
		c := o.dial(t)
		misuse(c)
		c.ends()
		good.request(0, cmdFlush, 1, 0, 0)
		good.want(1, 0)
		t.Log(name)
	}
	for name, misuse := range map[string]func(c *client){
		"a request without magic":    func(c *client) { c.put(make([]byte, headerSize)) },
		"half a header":              func(c *client) { c.put(uint32(requestMagic), uint16(0)); closeWrite(c) },
		"a write that is too long":   func(c *client) { c.request(0, cmdWrite, 1, 0, MaxRequest+512) },
		"half of a write":            func(c *client) { c.request(0, cmdWrite, 1, 0, 8192, fill(512, 1)...); closeWrite(c) },
		"half of what is not wanted": func(c *client) { c.request(0, cmdWrite, 1, mib, 8192, 1, 2, 3); closeWrite(c) },
	} {
		c := o.ready(t)
		misuse(c)
		c.ends()
		good.request(0, cmdFlush, 1, 0, 0)
		good.want(1, 0)
		t.Log(name)
	}
	if n := o.Count(front.Write); n != 0 {
		t.Errorf("%d writes came of misuse", n)
	}
}

func TestSlowHandshakeIsEnded(t *testing.T) {
	s := NewServer("md1", fronttest.New(mib, 512), slog.New(slog.DiscardHandler))
	s.limit = 100 * time.Millisecond
	ours, theirs := connection(t)
	over := make(chan struct{})
	go func() { s.client(ours); close(over) }()
	slow := clientOf(t, theirs)
	slow.hello()
	slow.put("IHAVE")
	slow.ends()
	<-over
}

func closeWrite(c *client) {
	if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// A server that ends with requests under way leaves its clients with an error.
func TestServerEndsWithRequestsUnderWay(t *testing.T) {
	o := offered(t, fronttest.New(mib, 512))
	o.Hold(func(fronttest.Seen) bool { return true })
	c := o.ready(t)
	c.request(0, cmdWrite, 1, 0, 512, fill(512, 1)...)
	eventually(t, "the write is held", func() bool { return o.Held() == 1 })
	o.server.Close()
	c.ends()
}

func TestSocketIsForItsOwnerOnly(t *testing.T) {
	o := offered(t, fronttest.New(mib, 512))
	info, err := os.Stat(o.socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v", info.Mode())
	}
	l, err := Listen(t.Context(), o.socket) // what is left behind is replaced
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func TestReplyToManySmallRequests(t *testing.T) {
	dev := fronttest.New(64*mib, 512)
	dev.Delay = func(fronttest.Seen) time.Duration { return 0 }
	o := offered(t, dev)
	c := o.ready(t)
	const n = 5000
	go func() {
		for i := range uint64(n) {
			c.request(0, cmdRead, i, 512*i, 512)
		}
	}()
	seen := make([]bool, n)
	for range n {
		cookie, err := c.reply()
		c.get(512)
		if err != 0 || seen[cookie] {
			t.Fatalf("request %d: error %d, answered before: %v", cookie, err, seen[cookie])
		}
		seen[cookie] = true
	}
}
