package replica

import (
	"cmp"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

const extentSize = meta.ExtentSize

// coolAfter is how long an extent stays in the activity log after its latest
// write ended: what is in the log is copied after a crash.
const coolAfter = 10 * time.Second

// activity is the activity log: the extents whose blocks may be changing.
type activity struct {
	in  map[uint32]*extent
	cap int
}

type extent struct {
	refs    int // IOs that hold it
	used    time.Duration
	durable bool // it stands in the log on the meta device
}

// extentsOf returns the extents that a range touches.
func extentsOf(off int64, n int) (out []uint32) {
	for e := off / extentSize; e <= (off+int64(n)-1)/extentSize; e++ {
		out = append(out, uint32(e))
	}
	return out
}

// hold takes the extents for an IO. ready says whether all of them are durable;
// if not, changed says that the log has to be written first. Without room for all
// of them it takes none, and says room false.
func (a *activity) hold(es []uint32, now time.Duration) (ready, changed, room bool) {
	missing := 0
	for _, e := range es {
		if a.in[e] == nil {
			missing++
		}
	}
	if over := len(a.in) + missing - a.cap; over > 0 && !a.evict(over, es) {
		return false, false, false
	}
	ready = true
	for _, e := range es {
		x := a.in[e]
		if x == nil {
			x = &extent{}
			a.in[e], changed = x, true
		}
		x.refs++
		x.used = now
		ready = ready && x.durable
	}
	return ready, changed, true
}

func (a *activity) durable(es []uint32) bool {
	for _, e := range es {
		if x := a.in[e]; x == nil || !x.durable {
			return false
		}
	}
	return true
}

func (a *activity) release(es []uint32, now time.Duration) {
	for _, e := range es {
		x := a.in[e]
		x.refs--
		x.used = now
	}
}

// evict drops the n extents that were not used for longest, none of keep. It
// drops none where fewer could be.
func (a *activity) evict(n int, keep []uint32) bool {
	idle := a.idle(func(e uint32, x *extent) bool { return !slices.Contains(keep, e) })
	if len(idle) < n {
		return false
	}
	for _, e := range idle[:n] {
		delete(a.in, e)
	}
	return true
}

// cool drops the extents that nothing has touched for coolAfter, and says
// whether there were any.
func (a *activity) cool(now time.Duration) bool {
	old := a.idle(func(_ uint32, x *extent) bool { return now-x.used >= coolAfter })
	for _, e := range old {
		delete(a.in, e)
	}
	return len(old) > 0
}

// idle returns the extents that no IO holds, longest unused first.
func (a *activity) idle(which func(uint32, *extent) bool) (out []uint32) {
	for e, x := range a.in {
		if x.refs == 0 && x.durable && which(e, x) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(p, q uint32) int { return cmp.Or(cmp.Compare(a.in[p].used, a.in[q].used), cmp.Compare(p, q)) })
	return out
}

// all returns every extent of the log, sorted.
func (a *activity) all() []uint32 {
	out := make([]uint32, 0, len(a.in))
	for e := range a.in {
		out = append(out, e)
	}
	slices.Sort(out)
	return out
}

// written notes that the log with these extents is durable.
func (a *activity) written(es []uint32) {
	for _, e := range es {
		if x := a.in[e]; x != nil {
			x.durable = true
		}
	}
}
