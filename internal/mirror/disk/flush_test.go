package disk

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"
)

// TestHabit: w is a write, f a flush, W a write after which a flush is expected.
func TestHabit(t *testing.T) {
	for name, story := range map[string]string{
		"a write and a flush":              "wf wf wf wf wf wf Wf Wf Wf",
		"a journal":                        "wwwf wf wwwf wf wwwf wf wwWf Wf wwWf Wf",
		"flushes alone":                    "fffffffff",
		"writes alone":                     "wwwwwwwwwwwwwww",
		"irregular":                        "wf wwf wwwf wwf wf wwwf wf wwf wwwwf wf wwwf",
		"a burst, and from the beginning":  "wf wf wf wf wf wf Wf Wwwwwf wf wf wf wf wf wf Wf",
		"it stops too early, and so again": "wwf wwf wwf wwf wwf wwf wWf wf wwf wwf wwf wwf wwf wwf wWf",
	} {
		var h habit
		for i, c := range story {
			switch c {
			case 'w', 'W':
				if got := h.wrote(); got != (c == 'W') {
					t.Errorf("%s: after %q: a flush is expected: %v", name, story[:i+1], got)
				}
			case 'f':
				h.flushed()
			}
		}
	}
}

// TestFlushEarly: what is flushed before it is asked for is durable, what is written
// after that is not, and an error is not lost.
func TestFlushEarly(t *testing.T) {
	d := mustOpen(t, newFile(t, mib), Options{Buffered: true})
	f, m := d.(*file), Measure(d)
	dirty := func() bool { return f.changes.Load() > f.durable }
	p := filled(4096, 'a')
	for i := range 8 {
		write(t, m, 0, p, false)
		if want := i >= 6; m.FlushExpected() != want {
			t.Fatalf("write %d: a flush is expected: %v", i, !want)
		}
		if err := m.Flush(); err != nil || m.FlushExpected() {
			t.Fatalf("after a flush another is expected, or %v", err)
		}
	}
	write(t, m, 0, p, false)
	m.FlushEarly()
	if dirty() || m.FlushExpected() || m.Stats().Early != 1 {
		t.Errorf("the flush was not made, not counted, or is still expected: %+v", m.Stats().Early)
	}
	write(t, m, 0, p, false)
	if !dirty() {
		t.Error("a write after an early flush needs no flush")
	}
	failed := error(syscall.EIO)
	f.failed.Store(&failed)
	m.FlushEarly()
	if err := m.Flush(); Errno(err) != syscall.EIO || !strings.Contains(err.Error(), "an earlier flush failed") {
		t.Errorf("the error of an early flush is lost: %v", err)
	}
}

// TestFlushCoversWhatHasEnded: when a flush returns, what had ended before it was called
// had ended before a call of the kernel that has ended since, whoever made that.
func TestFlushCoversWhatHasEnded(t *testing.T) {
	f := mustOpen(t, newFile(t, mib), Options{Buffered: true, Queue: true}).(*file)
	var kernel atomic.Int64 // how many changes had ended when its latest call began that has ended
	calls := 0
	f.sync = func(int) error {
		n := f.changes.Load()
		for range rand.IntN(50) { // the others go on meanwhile
			runtime.Gosched()
		}
		kernel.Store(n)
		calls++
		return nil
	}
	var g errgroup.Group
	for i := range 8 {
		g.Go(func() error {
			p := filled(4096, 'a')
			for range 300 {
				if err := f.WriteAt(p, int64(i)*4096, false); err != nil {
					return err
				}
				if f.FlushExpected() || rand.IntN(8) == 0 {
					f.FlushEarly()
				}
				ended := f.changes.Load()
				if err := f.Flush(); err != nil {
					return err
				}
				if durable := kernel.Load(); durable < ended {
					return fmt.Errorf("a flush has returned when %d changes were durable, and %d had ended", durable, ended)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil || calls == 0 || calls >= 8*300 {
		t.Errorf("%d calls for 2400 flushes: %v", calls, err)
	}
}

// TestFlushEarlyMeetsNoFault: where a fault was asked for a flush comes when it is asked for.
func TestFlushEarlyMeetsNoFault(t *testing.T) {
	faulty := Faulty(mustOpen(t, newFile(t, mib), Options{Buffered: true}))
	for range 7 {
		if err := faulty.Flush(); err != nil {
			t.Fatal(err)
		}
		write(t, faulty, 0, filled(4096, 'a'), false)
	}
	if !faulty.FlushExpected() {
		t.Fatal("no flush is expected")
	}
	faulty.Inject(Fault{On: Flushes, Do: FailEIO})
	if faulty.FlushExpected() {
		t.Error("a flush is made early that is to fail")
	}
	faulty.Inject()
	faulty.Volatile()
	if faulty.FlushExpected() {
		t.Error("a flush is made early of what is in a cache")
	}
	if Measure(NewMem(mib, 512)).FlushExpected() {
		t.Error("memory foresees a flush")
	}
}
