package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// FaultDisk is a Disk that fails as it is told, and that can lose its power.
// What it is told it obeys at once, also in operations that are under way.
//
// With Volatile it has a cache like a real disk's: what was written and not
// flushed may be lost, sector by sector, when Crash takes the power away. A
// sector that was written several times since the last flush may hold any of
// these contents after that, or the one before them. Operations that change
// something run one by one then.
type FaultDisk struct {
	Disk

	mu    sync.Mutex
	armed []armed
	gone  chan struct{} // closed when armed is replaced or the power goes
	dead  bool          // without power: everything fails

	volatile atomic.Bool
	io       sync.Mutex         // held while something changes, if volatile
	cache    map[int64][][]byte // by sector: the durable content, then what was written since
}

// armed is a fault with what it has met so far.
type armed struct {
	Fault
	seen int
}

// The bounds of the cache: contents that are kept of one sector, and sectors. A
// full cache is written out, as that of a disk is.
const (
	keptVersions = 4
	cacheSectors = 1 << 18
)

var errFault = fmt.Errorf("a fault on purpose: %w", syscall.EIO)

// Faulty returns a disk that does as d does until it is told otherwise.
func Faulty(d Disk) *FaultDisk {
	return &FaultDisk{Disk: d, gone: make(chan struct{}), cache: map[int64][][]byte{}}
}

// Inject replaces all faults, with their counts begun anew. None clears them:
// what hangs goes on.
func (f *FaultDisk) Inject(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = nil
	for _, one := range faults {
		f.armed = append(f.armed, armed{Fault: one})
	}
	f.wake()
}

// wake lets go on what hangs or is delayed. mu is held.
func (f *FaultDisk) wake() {
	close(f.gone)
	f.gone = make(chan struct{})
}

// Set is Inject from a text of lines, each a fault as ParseFault reads it, or
//
//	volatile     as Volatile does
//	crash=SEED   as Crash does
//	restart      as Restart does
//
// Empty lines and those that begin with # count for nothing. An error changes
// nothing.
func (f *FaultDisk) Set(text string) error {
	var faults []Fault
	var then []func() error
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		seed, crash := strings.CutPrefix(line, "crash=")
		switch {
		case line == "" || line[0] == '#':
		case line == "volatile":
			then = append(then, func() error { f.Volatile(); return nil })
		case line == "restart":
			then = append(then, func() error { f.Restart(); return nil })
		case crash:
			n, err := strconv.ParseUint(seed, 10, 64)
			if err != nil {
				return fmt.Errorf("%q: a seed is a number", line)
			}
			then = append(then, func() error { return f.Crash(n) })
		default:
			one, err := ParseFault(line)
			if err != nil {
				return err
			}
			faults = append(faults, one)
		}
	}
	f.Inject(faults...)
	for _, do := range then {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// followEvery is how often Follow looks at its file.
const followEvery = 50 * time.Millisecond

// Follow does what is written to a file, as Set reads it, whenever it has
// changed, until ctx ends. A file that is gone is an empty one; what cannot be
// read or obeyed is reported. A writer replaces the file by renaming another
// one, so that half of it is not obeyed.
func (f *FaultDisk) Follow(ctx context.Context, path string, report func(error)) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var last []byte
	for {
		text, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			report(err)
		} else if !bytes.Equal(text, last) {
			last = text
			if err := f.Set(string(text)); err != nil {
				report(fmt.Errorf("%s: %w", path, err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Volatile gives the disk a cache from now on.
func (f *FaultDisk) Volatile() { f.volatile.Store(true) }

// Crash takes the power away: every operation fails with EIO, those that hang
// too, until Restart. What is in the cache reaches the medium or not, as the seed
// says.
func (f *FaultDisk) Crash(seed uint64) error {
	f.mu.Lock()
	f.dead = true
	f.wake()
	f.mu.Unlock()
	f.io.Lock()
	defer f.io.Unlock()
	return f.settle(seed)
}

// settle chooses what survives. io is held.
func (f *FaultDisk) settle(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	sector := f.SectorSize()
	b := Aligned(sector)
	for _, s := range slices.Sorted(maps.Keys(f.cache)) {
		versions := f.cache[s]
		copy(b, versions[rng.IntN(len(versions))])
		if err := f.Disk.WriteAt(b, s*int64(sector), false); err != nil {
			return err
		}
	}
	clear(f.cache)
	return f.Disk.Flush()
}

// Restart gives the power back. Faults that were injected stay.
func (f *FaultDisk) Restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = false
}

// Close lets go on what hangs, and closes the disk below.
func (f *FaultDisk) Close() error {
	f.Inject()
	return f.Disk.Close()
}

// meet finds the faults that an operation meets, waits as they say, and returns
// the others.
func (f *FaultDisk) meet(k opKind, off, n int64) ([]Fault, error) {
	f.mu.Lock()
	var hit []Fault
	for i := range f.armed {
		a := &f.armed[i]
		if !a.meets(k, off, n) {
			continue
		}
		if a.seen++; a.seen > a.After && (a.Count == 0 || a.seen <= a.After+a.Count) {
			hit = append(hit, a.Fault)
		}
	}
	gone, dead := f.gone, f.dead
	f.mu.Unlock()
	fail := func(err error) ([]Fault, error) {
		return nil, &Error{Op: opNames[k], Path: "faulty disk", Off: off, Len: n, Err: err}
	}
	var rest []Fault
	for _, h := range hit {
		switch {
		case dead:
		case h.Do == FailEIO:
			return fail(errFault)
		case h.Do == FailENOSPC:
			return fail(fmt.Errorf("a fault on purpose: %w", syscall.ENOSPC))
		case h.Do == Hang:
			<-gone
			dead = f.isDead()
		case h.Do == Delay:
			timer := time.NewTimer(time.Duration(h.Value))
			select {
			case <-timer.C:
			case <-gone:
			}
			timer.Stop()
			dead = f.isDead()
		default:
			rest = append(rest, h)
		}
	}
	if dead {
		return fail(errFault)
	}
	return rest, nil
}

func (f *FaultDisk) isDead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// sound says that nothing is to be wrong with the disk now.
func (f *FaultDisk) sound() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.armed) == 0 && !f.dead && !f.volatile.Load()
}

// Start begins an operation, if the disk can and nothing is wrong with it.
func (f *FaultDisk) Start(o Start) bool {
	below, ok := f.Disk.(Starter)
	return ok && f.sound() && below.Start(o)
}

// FlushExpected is false where something is wrong: a fault is met by who asks.
func (f *FaultDisk) FlushExpected() bool {
	below, ok := f.Disk.(Early)
	return ok && f.sound() && below.FlushExpected()
}

func (f *FaultDisk) FlushEarly() {
	if below, ok := f.Disk.(Early); ok {
		below.FlushEarly()
	}
}

func (f *FaultDisk) ReadAt(p []byte, off int64) (int, error) {
	faults, err := f.meet(opRead, off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	n, err := f.Disk.ReadAt(p, off)
	for _, one := range faults {
		one.flip(p[:n], off)
	}
	return n, err
}

// flip makes a bit wrong of what stands at off.
func (f Fault) flip(p []byte, off int64) {
	if at := max(f.From-off, 0); f.Do == Flip && at < int64(len(p)) {
		p[at] ^= 1
	}
}

func (f *FaultDisk) WriteAt(p []byte, off int64, durable bool) error {
	faults, err := f.meet(opWrite, off, int64(len(p)))
	if err != nil {
		return err
	}
	for _, one := range faults {
		switch one.Do {
		case Lost:
			return nil
		case Misdirect:
			off += one.Value
		case Flip:
			wrong := Aligned(len(p))
			copy(wrong, p)
			one.flip(wrong, off)
			p = wrong
		case Torn:
			head := p[:min(int64(len(p)), one.Value*int64(f.SectorSize()))]
			if err := f.write(head, off, true); err != nil {
				return err
			}
			err := &Error{Op: "write", Path: "faulty disk", Off: off, Len: int64(len(p)), Err: errFault}
			return errors.Join(err, f.Crash(uint64(off)))
		}
	}
	return f.write(p, off, durable)
}

func (f *FaultDisk) write(p []byte, off int64, durable bool) error {
	return f.change(off, int64(len(p)), durable, func() error { return f.Disk.WriteAt(p, off, durable) })
}

func (f *FaultDisk) Flush() error {
	faults, err := f.meet(opFlush, 0, 0)
	if err != nil || len(faults) > 0 { // it can only be Lost
		return err
	}
	if !f.volatile.Load() {
		return f.Disk.Flush()
	}
	f.io.Lock()
	defer f.io.Unlock()
	return f.destage()
}

// destage writes the cache out. io is held.
func (f *FaultDisk) destage() error {
	// The power may have gone while this waited for its turn.
	if f.isDead() {
		return errFault
	}
	if err := f.Disk.Flush(); err != nil {
		return err
	}
	clear(f.cache)
	return nil
}

func (f *FaultDisk) Discard(off, n int64) error {
	return f.pieces(opDiscard, off, n, f.Disk.Discard)
}

func (f *FaultDisk) Zero(off, n int64) error { return f.pieces(opZero, off, n, f.Disk.Zero) }

// pieces is change for a range of any length, step by step if there is a cache,
// because that has to read what was there.
func (f *FaultDisk) pieces(k opKind, off, n int64, do func(off, n int64) error) error {
	faults, err := f.meet(k, off, n)
	if err != nil || len(faults) > 0 { // it can only be Lost
		return err
	}
	step := n
	if f.volatile.Load() {
		step = min(step, 1<<20)
	}
	for end := off + n; ; off += step {
		step = min(step, end-off)
		if err := f.change(off, step, false, func() error { return do(off, step) }); err != nil || off+step >= end {
			return err
		}
	}
}

// change does what changes a range, and remembers in the cache what was there
// before and is there after.
func (f *FaultDisk) change(off, n int64, durable bool, do func() error) error {
	if !f.volatile.Load() {
		return do()
	}
	f.io.Lock()
	defer f.io.Unlock()
	if f.isDead() {
		return errFault
	}
	size := int64(f.SectorSize())
	before, after := Aligned(int(n)), Aligned(int(n))
	was, _ := f.Disk.ReadAt(before, off)
	err := do()
	is, _ := f.Disk.ReadAt(after, off)
	for at := int64(0); at+size <= int64(min(was, is)); at += size {
		s := (off + at) / size
		if durable && err == nil {
			delete(f.cache, s)
			continue
		}
		versions := f.cache[s]
		if versions == nil {
			versions = [][]byte{before[at : at+size]}
		}
		if versions = append(versions, after[at:at+size]); len(versions) > keptVersions {
			versions = slices.Delete(versions, 1, 2)
		}
		f.cache[s] = versions
	}
	if err == nil && len(f.cache) > cacheSectors {
		err = f.destage()
	}
	return err
}
