package serve

import (
	"sync/atomic"
	"syscall"

	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
)

// device is the mirror disk as a front end sees it.
type device struct{ s *Server }

var _ front.Device = device{}

// Size is how large the mirror disk is.
func (d device) Size() int64 {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.s.core.Size()
}

// SectorSize is that of the data device.
func (d device) SectorSize() int { return d.s.data.SectorSize() }

// job is a request of the kernel and the IOs that it became.
type job struct {
	r     *front.Request
	parts atomic.Int32
	errno atomic.Uint32
	zero  bool // it writes zeroes: the request has no data
}

// data returns the part of the request's data that an IO is about.
func (j *job) data(io *replica.IO) []byte {
	if j.zero {
		return disk.ZeroBytes(io.Len)
	}
	at := io.Off - j.r.Offset
	return j.r.Data[at : at+int64(io.Len)]
}

// Do takes a request.
func (d device) Do(r *front.Request) {
	op, step := replica.Read, replica.MaxRange
	switch r.Op {
	case front.Read:
		d.s.reads.Add(1)
		d.s.readBytes.Add(uint64(r.Length))
	case front.Write:
		op = replica.Write
		d.s.writes.Add(1)
		d.s.writeBytes.Add(uint64(r.Length))
	case front.Flush:
		op = replica.Flush
	case front.Discard, front.Zero:
		op = replica.Zero
	}
	j := &job{r: r}
	if r.NoHole {
		op, step, j.zero = replica.Write, front.MaxLength, true
	}
	n := max((r.Length+step-1)/step, 1)
	j.parts.Store(int32(n))
	for i := range n {
		io := &replica.IO{Op: op, Off: r.Offset + int64(i*step), Len: min(step, r.Length-i*step), FUA: r.FUA, Tag: j}
		d.s.stepHere(func(c *replica.Core) { c.Submit(io) })
	}
}

// complete answers the kernel when all parts of its request are complete.
func complete(io *replica.IO) {
	j, ok := io.Tag.(*job)
	if !ok {
		return
	}
	if io.Err != 0 {
		j.errno.CompareAndSwap(0, uint32(io.Err))
	}
	if j.parts.Add(-1) == 0 {
		j.r.Done(j.r, syscall.Errno(j.errno.Load()))
	}
}
