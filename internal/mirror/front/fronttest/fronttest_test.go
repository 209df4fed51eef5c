package fronttest

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

// do carries out one request and waits for it.
func do(t *testing.T, d *Device, r front.Request) syscall.Errno {
	t.Helper()
	done := make(chan syscall.Errno, 1)
	r.Done = func(_ *front.Request, err syscall.Errno) { done <- err }
	d.Do(&r)
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("a request was not completed")
		return 0
	}
}

func TestContentOutlivesTheDevice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bytes")
	for round, want := range []byte{0, 7} {
		d, err := Map(path, 1<<20, 512)
		if err != nil {
			t.Fatal(err)
		}
		data := disk.Aligned(512)
		if err := do(t, d, front.Request{Op: front.Read, Offset: 4096, Length: 512, Data: data}); err != 0 {
			t.Fatal(err)
		}
		if data[511] != want {
			t.Errorf("round %d: read %d, want %d", round, data[511], want)
		}
		data[511] = 7
		if err := do(t, d, front.Request{Op: front.Write, Offset: 4096, Length: 512, Data: data}); err != 0 {
			t.Fatal(err)
		}
		d.Check(t)
	}
}

func TestContractIsHeld(t *testing.T) {
	d := New(1<<20, 4096)
	data := disk.Aligned(2 * front.MaxLength)
	for want, r := range map[string]front.Request{
		"beyond":         {Op: front.Read, Offset: 1 << 20, Length: 4096, Data: data[:4096]},
		"in sectors":     {Op: front.Write, Offset: 512, Length: 4096, Data: data[:4096]},
		"not aligned":    {Op: front.Write, Length: 4096, Data: data[8 : 8+4096]},
		"bytes of data":  {Op: front.Write, Length: 4096, Data: data[:512]},
		"neither length": {Op: front.Flush, Length: 512},
		"not belong":     {Op: front.Discard, Length: 4096, FUA: true},
	} {
		if err := do(t, d, r); err != syscall.EINVAL {
			t.Errorf("%s: %v", want, err)
		}
		if last := d.wrong[len(d.wrong)-1].Error(); !strings.Contains(last, want) {
			t.Errorf("%q does not say %q", last, want)
		}
	}
}

func TestHeldRequestsComeBackLatestFirst(t *testing.T) {
	d := New(1<<20, 512)
	d.Hold(func(s Seen) bool { return s.Op == front.Flush })
	order := make(chan int, 2)
	for i := range 2 {
		d.Do(&front.Request{Op: front.Flush, Done: func(*front.Request, syscall.Errno) { order <- i }})
	}
	if d.Held() != 2 || len(order) != 0 {
		t.Fatalf("%d are held, %d completed", d.Held(), len(order))
	}
	d.Release()
	if a, b := <-order, <-order; a != 1 || b != 0 {
		t.Errorf("completed in the order %d, %d", a, b)
	}
}
