package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// until waits for what another goroutine does.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	timeout := time.After(10 * time.Second)
	for !f() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestParseFault(t *testing.T) {
	for text, want := range map[string]Fault{
		"write:eio:after=3":             {On: Writes, Do: FailEIO, After: 3},
		"read:eio:range=0-1M":           {On: Reads, Do: FailEIO, To: mib},
		"all:hang":                      {On: All, Do: Hang},
		"write:delay=200ms":             {On: Writes, Do: Delay, Value: int64(200 * time.Millisecond)},
		"read,flush:enospc:count=2":     {On: Reads | Flushes, Do: FailENOSPC, Count: 2},
		"write:torn=3:count=1":          {On: Writes, Do: Torn, Value: 3, Count: 1},
		"all:flip:range=4K-8K":          {On: Reads | Writes, Do: Flip, From: 4096, To: 8192},
		"write:misdirect=1G":            {On: Writes, Do: Misdirect, Value: 1 << 30},
		"flush:lost":                    {On: Flushes, Do: Lost},
		"discard,zero:eio:range=0-512T": {On: Discards | Zeroes, Do: FailEIO, To: 512 << 40},
	} {
		got, err := ParseFault(text)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v %s", text, err, d)
		}
	}
	for text, want := range map[string]string{
		"":                         "it has the form",
		"write":                    "it has the form",
		"wrote:eio":                `no operation "wrote"`,
		"write:melt":               `no action "melt"`,
		"write:eio=1":              "eio has no value",
		"write:delay":              "delay has a value: time",
		"write:delay=-1s":          "not negative",
		"write:delay=x":            "invalid duration",
		"read:torn=1":              "not for all of these",
		"write:eio:after=-1":       "not a number",
		"write:eio:when=now":       `no key "when"`,
		"write:eio:range=1M-1M":    "not empty",
		"write:eio:range=5":        "not a number",
		"write:misdirect=9999999T": "not a number",
	} {
		if _, err := ParseFault(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseFault(f *testing.F) {
	for _, text := range []string{"write:eio:after=3", "all:delay=1h1ns:range=0-1T", "read,write:flip:count=7", "write:torn=9"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fault, err := ParseFault(text)
		if err != nil {
			return
		}
		if again, err := ParseFault(fault.String()); err != nil || again != fault {
			t.Fatalf("%+v is written as %s, which is %+v, %v", fault, fault, again, err)
		}
	})
}

// faulty is a disk of 64 KiB of 'o', with 'i' in the second sector, and faults.
func faulty(t *testing.T, text string) (*FaultDisk, *Mem) {
	t.Helper()
	m := NewMem(64<<10, 512)
	write(t, m, 0, filled(64<<10, 'o'), false)
	write(t, m, 512, filled(512, 'i'), false)
	f := Faulty(m)
	if err := f.Set(text); err != nil {
		t.Fatal(err)
	}
	return f, m
}

func TestFailures(t *testing.T) {
	f, _ := faulty(t, "# the third write\nwrite:eio:after=2:count=1\n\nread:enospc:range=8K-12K\nflush:eio:count=1\n")
	p := filled(4096, 'n')
	for i, want := range []syscall.Errno{0, 0, syscall.EIO, 0} {
		if err := f.WriteAt(p, 0, false); Errno(err) != want {
			t.Errorf("write %d: %v, want %v", i+1, err, want)
		}
	}
	for off, want := range map[int64]syscall.Errno{4096: 0, 8192: syscall.ENOSPC, 12288: 0} {
		if _, err := f.ReadAt(p, off); Errno(err) != want {
			t.Errorf("read at %d: %v, want %v", off, err, want)
		}
	}
	for i, want := range []syscall.Errno{syscall.EIO, 0} {
		if err := f.Flush(); Errno(err) != want {
			t.Errorf("flush %d: %v, want %v", i+1, err, want)
		}
	}
	if err := f.Set("write:eio\nnonsense"); err == nil {
		t.Error("nonsense was taken")
	} else if err := f.WriteAt(p, 0, false); err != nil {
		t.Errorf("half of what cannot be read was obeyed: %v", err)
	}
}

func TestWrongData(t *testing.T) {
	f, m := faulty(t, "read:flip:range=1024-1536:count=1")
	b := read(t, f, 0, 4096)
	if b[1024] != 'o'^1 || !bytes.Equal(b[:1024], read(t, m, 0, 1024)) {
		t.Error("not the one bit of the read is wrong")
	}
	expect(t, f, 1024, 512, 'o')

	p := filled(512, 'w')
	for _, c := range []struct {
		fault       string
		here, there byte // first of the sector that is written, and of the one 1024 bytes on
	}{
		{"write:flip", 'w' ^ 1, 'o'},
		{"write:misdirect=1K", 'i', 'w'},
		{"write:lost", 'i', 'o'},
	} {
		f, m := faulty(t, c.fault)
		write(t, f, 512, p, true)
		if h, th := read(t, m, 512, 512)[0], read(t, m, 1536, 512)[0]; h != c.here || th != c.there {
			t.Errorf("%s: %q and %q, want %q and %q", c.fault, h, th, c.here, c.there)
		}
		if p[0] != 'w' {
			t.Errorf("%s: the caller's buffer was changed", c.fault)
		}
	}
}

func TestHang(t *testing.T) {
	f, m := faulty(t, "write,flush:hang")
	d := Measure(f)
	results := make(chan error, 2)
	hang := func() {
		go func() { results <- d.WriteAt(filled(512, 'h'), 0, false) }()
		go func() { results <- d.Flush() }()
		until(t, "both hang", func() bool { s := d.Stats(); return s.UnderWay == 2 && s.Oldest > 2*time.Millisecond })
	}
	hang()
	expect(t, d, 0, 512, 'o') // reads go on
	if err := f.Set(""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-results; err != nil {
			t.Errorf("released: %v", err)
		}
	}
	expect(t, m, 0, 512, 'h')
	if s := d.Stats(); s.UnderWay != 0 || s.Oldest != 0 || s.Writes.Count != 1 || s.Flushes.Count != 1 {
		t.Errorf("after that: %+v", s)
	}

	if err := f.Set("write,flush:hang"); err != nil {
		t.Fatal(err)
	}
	hang()
	if err := f.Crash(1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-results; Errno(err) != syscall.EIO {
			t.Errorf("without power: %v", err)
		}
	}
	if _, err := d.ReadAt(Aligned(512), 0); Errno(err) != syscall.EIO {
		t.Errorf("a read without power: %v", err)
	}
	f.Restart()
	expect(t, d, 0, 512, 'h')
}

func TestDelay(t *testing.T) {
	f, _ := faulty(t, "read:delay=20ms:count=1\nread:delay=1h:after=1")
	d := Measure(f)
	expect(t, d, 0, 512, 'o')
	if h := d.Stats().Reads.Latency; h.Quantile(1) < 20*time.Millisecond {
		t.Errorf("it took less than %v", h.Quantile(1))
	}
	done := make(chan error, 1)
	go func() { _, err := d.ReadAt(Aligned(512), 0); done <- err }()
	until(t, "a read waits", func() bool { return d.Stats().UnderWay == 1 })
	f.Inject()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTornWrite(t *testing.T) {
	for _, volatile := range []string{"", "volatile\n"} {
		f, m := faulty(t, volatile+"write:torn=3:after=1")
		write(t, f, 0, filled(4096, '1'), true)
		if err := f.WriteAt(filled(4096, '2'), 0, true); Errno(err) != syscall.EIO {
			t.Fatal(err)
		}
		if err := f.Flush(); Errno(err) != syscall.EIO {
			t.Errorf("a flush without power: %v", err)
		}
		expect(t, m, 0, 3*512, '2')
		expect(t, m, 3*512, 5*512, '1')
	}
}

func TestLostFlush(t *testing.T) {
	for text, lossy := range map[string]bool{"volatile": false, "volatile\nflush:lost": true} {
		lost := false
		for seed := range uint64(20) {
			f, m := faulty(t, text)
			write(t, f, 0, filled(512, 'n'), false)
			if err := errors.Join(f.Flush(), f.Crash(seed)); err != nil {
				t.Fatal(err)
			}
			lost = lost || read(t, m, 0, 512)[0] == 'o'
		}
		if lost != lossy {
			t.Errorf("%q: lost what was flushed: %v", text, lost)
		}
	}
}

func TestFollow(t *testing.T) {
	f, m := faulty(t, "")
	path := filepath.Join(t.TempDir(), "faults")
	put := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	works := func() bool { return f.WriteAt(filled(512, 'f'), 0, false) == nil }
	ctx, cancel := context.WithCancel(t.Context())
	reports := make(chan error, 100)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { f.Follow(ctx, path, func(err error) { reports <- err }) })
	put("write:eio\n")
	until(t, "writes fail", func() bool { return !works() })
	put("melt\n")
	if err := <-reports; !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "melt") {
		t.Error(err)
	}
	if works() {
		t.Error("what cannot be read has cleared the faults")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	until(t, "writes work", works)
	put("crash=7")
	until(t, "the power is gone", func() bool { return !works() })
	put("restart")
	until(t, "the power is back", works)
	expect(t, m, 0, 512, 'f')
}

// cutModel is a disk with a volatile cache, and what each of its sectors may
// hold. All bytes of a sector are the same.
type cutModel struct {
	disk  *FaultDisk
	last  byte
	now   [cutSectors]byte          // what a sector reads as
	legal [cutSectors]map[byte]bool // what it may hold after a power cut
}

const cutSectors, cutSector = 32, 512

func (m *cutModel) put(from, n int, c byte, durable bool) {
	for i := from; i < from+n; i++ {
		if m.now[i] = c; durable {
			clear(m.legal[i])
		}
		m.legal[i][c] = true
	}
}

// span draws a range, in sectors and in bytes.
func (m *cutModel) span(t *rapid.T) (from, n int, off, size int64) {
	from = rapid.IntRange(0, cutSectors-1).Draw(t, "from")
	n = rapid.IntRange(1, min(8, cutSectors-from)).Draw(t, "n")
	return from, n, int64(from) * cutSector, int64(n) * cutSector
}

func (m *cutModel) write(t *rapid.T) {
	from, n, off, size := m.span(t)
	durable := rapid.Bool().Draw(t, "durable")
	m.last++
	if err := m.disk.WriteAt(filled(int(size), m.last), off, durable); err != nil {
		t.Fatal(err)
	}
	m.put(from, n, m.last, durable)
}

func (m *cutModel) zero(t *rapid.T) {
	from, n, off, size := m.span(t)
	if err := m.disk.Zero(off, size); err != nil {
		t.Fatal(err)
	}
	m.put(from, n, 0, false)
}

func (m *cutModel) flush(t *rapid.T) {
	if err := m.disk.Flush(); err != nil {
		t.Fatal(err)
	}
	for i, c := range m.now {
		m.put(i, 1, c, true)
	}
}

func (m *cutModel) crash(t *rapid.T) {
	if err := m.disk.Crash(rapid.Uint64().Draw(t, "seed")); err != nil {
		t.Fatal(err)
	}
	m.disk.Restart()
	for i, c := range m.look(t) {
		if !m.legal[i][c] {
			t.Fatalf("sector %d holds %d, legal is %v", i, c, m.legal[i])
		}
		m.put(i, 1, c, true)
	}
}

func (m *cutModel) check(t *rapid.T) {
	if is := m.look(t); is != m.now {
		t.Fatalf("reads as %v, want %v", is, m.now)
	}
}

// look reads the disk.
func (m *cutModel) look(t *rapid.T) (is [cutSectors]byte) {
	b := Aligned(cutSectors * cutSector)
	if _, err := m.disk.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	for i := range is {
		is[i] = b[i*cutSector]
		if one := b[i*cutSector:][:cutSector]; !bytes.Equal(one, filled(cutSector, is[i])) {
			t.Fatalf("sector %d holds %x", i, one)
		}
	}
	return is
}

// TestPowerCuts: what was flushed survives, of what was not each sector holds
// what it held at the last flush or something that was written to it since, and
// nothing else appears.
func TestPowerCuts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &cutModel{disk: Faulty(NewMem(cutSectors*cutSector, cutSector))}
		m.disk.Volatile()
		for i := range m.legal {
			m.legal[i] = map[byte]bool{0: true}
		}
		t.Repeat(map[string]func(*rapid.T){"write": m.write, "zero": m.zero, "flush": m.flush, "crash": m.crash, "": m.check})
	})
}

// TestPowerCutChooses: every legal content of a sector comes about, else a test
// that survives all seeds has proved little.
func TestPowerCutChooses(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(200) {
		f, m := faulty(t, "volatile")
		write(t, f, 0, filled(1024, 'A'), false)
		write(t, f, 0, filled(1024, 'B'), false)
		if err := f.Crash(seed); err != nil {
			t.Fatal(err)
		}
		b := read(t, m, 0, 1024)
		seen[fmt.Sprintf("%c%c", b[0], b[512])] = true
	}
	for _, a := range "oAB" {
		for _, b := range "iAB" {
			if !seen[string(a)+string(b)] {
				t.Errorf("never %c%c: %v", a, b, seen)
			}
		}
	}
}

func TestStats(t *testing.T) {
	f, _ := faulty(t, "discard:eio")
	d := Measure(f)
	write(t, d, 0, filled(4096, 'x'), false)
	write(t, d, 0, filled(512, 'x'), true)
	expect(t, d, 0, 4096, 'x')
	if err := errors.Join(d.Flush(), d.Zero(0, 8192)); err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(0, 512); err == nil {
		t.Fatal("discarded")
	}
	s := d.Stats()
	for name, c := range map[string]struct {
		got                  Counts
		count, errors, bytes uint64
	}{
		"reads": {s.Reads, 1, 0, 4096}, "writes": {s.Writes, 2, 0, 4608}, "flushes": {s.Flushes, 1, 0, 0},
		"zeroes": {s.Zeroes, 1, 0, 8192}, "discards": {s.Discards, 1, 1, 0},
	} {
		if c.got.Count != c.count || c.got.Errors != c.errors || c.got.Bytes != c.bytes || c.got.Latency.Quantile(1) == 0 {
			t.Errorf("%s: %+v", name, c.got)
		}
	}
}

func TestQuantile(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("of nothing")
	}
	h[3], h[10] = 90, 10 // 4 to 8 µs, 512 to 1024 µs
	for q, want := range map[float64]time.Duration{0: time.Microsecond, 0.5: 8 * time.Microsecond, 0.9: 8 * time.Microsecond, 0.99: 1024 * time.Microsecond, 1: 1024 * time.Microsecond} {
		if got := h.Quantile(q); got != want {
			t.Errorf("%v: %v, want %v", q, got, want)
		}
	}
}

func BenchmarkMeasured(b *testing.B) {
	m := Measure(NewMem(mib, 512))
	p := Aligned(512)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = m.ReadAt(p, 0)
	}
}
