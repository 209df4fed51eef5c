package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// start carries out an operation by Start, and waits for its end.
func start(t *testing.T, d Starter, o Start) (began bool, err error) {
	t.Helper()
	done := make(chan error, 1)
	o.Done = func(err error) { done <- err }
	if !d.Start(o) {
		return false, nil
	}
	return true, <-done
}

// TestQueue: many operations at the same time do what they would do one by one.
func TestQueue(t *testing.T) {
	const blocks, workers = 512, 40
	path := newFile(t, blocks*4096)
	var settled atomic.Int32
	d := Measure(Faulty(mustOpen(t, path, Options{Buffered: true, Queue: true, Settled: func() { settled.Add(1) }})))
	want := make([]byte, blocks*4096)
	var wg sync.WaitGroup
	for w := range workers { // each has blocks of its own
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 0))
			p := Aligned(4096)
			for i := range 50 {
				at := (rng.IntN(blocks/workers)*workers + w) * 4096
				for k := range p {
					p[k] = byte(rng.Uint32())
				}
				o := Start{Write: true, P: p, Off: int64(at), Durable: i%10 == 0}
				if began, err := start(t, d, o); err != nil {
					t.Error(err)
				} else if !began {
					if err := d.WriteAt(p, int64(at), o.Durable); err != nil {
						t.Error(err)
					}
				}
				copy(want[at:], p)
				clear(p)
				if _, err := start(t, d, Start{P: p, Off: int64(at)}); err != nil || !bytes.Equal(p, want[at:at+4096]) {
					t.Errorf("block %d reads as something else: %v", at/4096, err)
				}
			}
		})
	}
	wg.Wait()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file holds something else: %v", err)
	}
	s := d.Stats()
	if s.Writes.Count != workers*50 || s.Reads.Count != workers*50 || s.Writes.Bytes != workers*50*4096 || s.UnderWay != 0 || settled.Load() == 0 {
		t.Errorf("%d writes of %d bytes, %d reads, %d under way, settled %d times", s.Writes.Count, s.Writes.Bytes, s.Reads.Count, s.UnderWay, settled.Load())
	}
}

// TestQueueRefuses: what Start does not take it has not begun.
func TestQueueRefuses(t *testing.T) {
	plain := mustOpen(t, newFile(t, mib), Options{Buffered: true})
	queued := mustOpen(t, newFile(t, mib), Options{Buffered: true, Queue: true})
	f := Faulty(queued)
	f.Inject(Fault{On: Writes, Do: FailEIO})
	for name, d := range map[string]Disk{"a disk without a queue": plain, "a disk with faults": f} {
		if began, _ := start(t, d.(Starter), Start{Write: true, P: Aligned(4096)}); began {
			t.Errorf("%s takes a write", name)
		}
	}
	for name, o := range map[string]Start{
		"past the end": {Write: true, P: Aligned(8192), Off: mib - 4096}, "an odd offset": {P: Aligned(4096), Off: 1}, "nothing": {},
	} {
		if began, _ := start(t, queued.(Starter), o); began {
			t.Errorf("%s is taken", name)
		}
	}
	f.Inject()
	if began, err := start(t, f, Start{Write: true, P: filled(4096, 'x'), Off: 4096}); !began || err != nil {
		t.Fatalf("after the faults: %v, %v", began, err)
	}
	expect(t, queued, 4096, 4096, 'x')
	if err := queued.Close(); err != nil {
		t.Fatal(err)
	}
	if began, _ := start(t, queued.(Starter), Start{P: Aligned(4096)}); began {
		t.Error("a closed disk takes a read")
	}
}

// TestQueueTellsErrors: an error of the device reaches the one who asked.
func TestQueueTellsErrors(t *testing.T) {
	path := newFile(t, mib)
	d := mustOpen(t, path, Options{Buffered: true, Queue: true})
	if err := os.Truncate(path, 4096); err != nil { // behind its back
		t.Fatal(err)
	}
	if began, err := start(t, d.(Starter), Start{P: Aligned(8192)}); !began || err == nil || errors.Is(err, syscall.EINVAL) {
		t.Errorf("half a read: %v, %v", began, err)
	}
}
