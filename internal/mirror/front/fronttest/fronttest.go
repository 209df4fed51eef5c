// Package fronttest is a front.Device for the tests of front ends: its bytes are
// in memory, it remembers what arrived, it can be told to wait or to fail, and it
// notes whatever a front end does against the contract.
package fronttest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

// Seen is a request as it arrived.
type Seen struct {
	Op          front.Op
	Offset      int64
	Length      int
	FUA, NoHole bool
}

func (s Seen) String() string {
	text := fmt.Sprintf("%s %d+%d", s.Op, s.Offset, s.Length)
	if s.FUA {
		text += " fua"
	}
	if s.NoHole {
		text += " nohole"
	}
	return text
}

// remembered is how many requests Seen returns at most.
const remembered = 4096

// Device is the device. Create it with New or Map. Its methods may be called at
// the same time; the hooks are set before it is used.
type Device struct {
	// Fail, if set, is asked about each request; one for which it returns an error
	// changes nothing and is completed with that.
	Fail func(Seen) syscall.Errno
	// Delay, if set, says how long a request takes. It is completed on another
	// goroutine then, also if that is 0.
	Delay func(Seen) time.Duration

	sector int

	mu     sync.RWMutex // writes and growing hold it whole: a read sees each write entirely or not at all
	bytes  []byte
	record sync.Mutex // guards what follows
	size   int64
	seen   []Seen
	counts [front.Zero + 1]int
	hold   func(Seen) bool
	held   []*front.Request
	wrong  []error
}

// New returns a device of size bytes of zero that can grow to twice of it.
// sector is 512 or 4096.
func New(size int64, sector int) *Device {
	return &Device{sector: sector, size: size, bytes: make([]byte, 2*size)}
}

// Map returns a device whose bytes are a file's, shared: what was written outlives
// the process, whichever way that ends. The file is made if it is missing.
func Map(path string, size int64, sector int) (*Device, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(2 * size); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(2*size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &Device{sector: sector, size: size, bytes: b}, nil
}

// Size is the device's, in bytes.
func (d *Device) Size() int64 {
	d.record.Lock()
	defer d.record.Unlock()
	return d.size
}

// SectorSize is the device's, in bytes.
func (d *Device) SectorSize() int { return d.sector }

// Grow sets the size, which is at most twice the first one.
func (d *Device) Grow(size int64) {
	d.record.Lock()
	defer d.record.Unlock()
	d.size = size
}

// Hold makes requests that match wait until Release.
func (d *Device) Hold(match func(Seen) bool) {
	d.record.Lock()
	defer d.record.Unlock()
	d.hold = match
}

// Held is how many requests wait.
func (d *Device) Held() int {
	d.record.Lock()
	defer d.record.Unlock()
	return len(d.held)
}

// Release carries out what waits, the latest first, and holds nothing any more.
func (d *Device) Release() {
	d.record.Lock()
	held := d.held
	d.hold, d.held = nil, nil
	d.record.Unlock()
	for _, r := range slices.Backward(held) {
		d.carryOut(r)
	}
}

// Do carries out a request, or notes that it must not be.
func (d *Device) Do(r *front.Request) {
	s := Seen{r.Op, r.Offset, r.Length, r.FUA, r.NoHole}
	d.record.Lock()
	err := d.broken(r, s)
	if err != nil {
		d.wrong = append(d.wrong, fmt.Errorf("%s: %w", s, err))
	} else {
		d.counts[s.Op]++
	}
	d.seen = append(d.seen, s)
	if len(d.seen) > remembered {
		d.seen = slices.Delete(d.seen, 0, remembered/2)
	}
	waits := err == nil && d.hold != nil && d.hold(s)
	if waits {
		d.held = append(d.held, r)
	}
	d.record.Unlock()
	switch {
	case err != nil:
		r.Done(r, syscall.EINVAL)
	case waits:
	case d.Delay != nil:
		time.AfterFunc(d.Delay(s), func() { d.carryOut(r) })
	default:
		d.carryOut(r)
	}
}

// broken returns what is wrong with a request. record is held.
func (d *Device) broken(r *front.Request, s Seen) error {
	moves := s.Op == front.Read || s.Op == front.Write
	switch {
	case r.Done == nil:
		return errors.New("no Done")
	case s.Op == front.Flush:
		if s.Length != 0 || s.FUA {
			return errors.New("a flush has neither length nor FUA")
		}
		return nil
	case s.Offset < 0 || s.Length <= 0 || s.Offset > d.size || int64(s.Length) > d.size-s.Offset:
		return fmt.Errorf("beyond the device of %d bytes", d.size)
	case s.Offset%int64(d.sector) != 0 || s.Length%d.sector != 0:
		return fmt.Errorf("not in sectors of %d", d.sector)
	case moves && s.Length > front.MaxLength:
		return errors.New("too long")
	case moves && len(r.Data) != s.Length:
		return fmt.Errorf("%d bytes of data", len(r.Data))
	case moves && uintptr(unsafe.Pointer(unsafe.SliceData(r.Data)))%front.Alignment != 0:
		return errors.New("data is not aligned")
	case s.FUA && s.Op != front.Write, s.NoHole && s.Op != front.Zero:
		return errors.New("a flag that does not belong to it")
	}
	return nil
}

func (d *Device) carryOut(r *front.Request) {
	err := syscall.Errno(0)
	if d.Fail != nil {
		err = d.Fail(Seen{r.Op, r.Offset, r.Length, r.FUA, r.NoHole})
	}
	if err == 0 {
		d.change(r)
	}
	r.Done(r, err)
}

func (d *Device) change(r *front.Request) {
	switch r.Op {
	case front.Read:
		d.mu.RLock()
		defer d.mu.RUnlock()
		copy(r.Data, d.bytes[r.Offset:])
	case front.Write:
		d.mu.Lock()
		defer d.mu.Unlock()
		copy(d.bytes[r.Offset:], r.Data)
	case front.Zero:
		d.mu.Lock()
		defer d.mu.Unlock()
		clear(d.bytes[r.Offset : r.Offset+int64(r.Length)])
	case front.Discard: // anything may be there: what nobody wants to read
		d.mu.Lock()
		defer d.mu.Unlock()
		gone := d.bytes[r.Offset : r.Offset+int64(r.Length)]
		gone[0] = 0xdb
		for n := 1; n < len(gone); n *= 2 {
			copy(gone[n:], gone[:n])
		}
	case front.Flush:
	}
}

// Seen returns the last requests, in the order of their arrival.
func (d *Device) Seen() []Seen {
	d.record.Lock()
	defer d.record.Unlock()
	return slices.Clone(d.seen)
}

// Forget forgets what arrived.
func (d *Device) Forget() {
	d.record.Lock()
	defer d.record.Unlock()
	d.seen, d.counts = nil, [front.Zero + 1]int{}
}

// Count is how many proper requests of a kind have arrived.
func (d *Device) Count(op front.Op) int {
	d.record.Lock()
	defer d.record.Unlock()
	return d.counts[op]
}

// Content returns a copy of n bytes from off on.
func (d *Device) Content(off int64, n int) []byte {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.bytes[off : off+int64(n)])
}

// Check fails the test for everything that a front end did against the contract.
func (d *Device) Check(t testing.TB) {
	t.Helper()
	d.record.Lock()
	defer d.record.Unlock()
	for _, err := range d.wrong {
		t.Errorf("the front end broke the contract: %v", err)
	}
}
