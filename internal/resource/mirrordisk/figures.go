package mirrordisk

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Figures is what the kernel asked of the copy of a mirror disk on this node since
// the process that serves it started.
type Figures struct {
	Name                                   cluster.ResourceName
	Reads, Writes, ReadBytes, WrittenBytes uint64
	Waiting                                int           // requests under way
	Oldest                                 time.Duration // how long the oldest of them has waited
}

// Figures asks all copies on this node, at the same time. One that does not answer
// until ctx ends is left out.
func (d *Driver) Figures(ctx context.Context) []Figures {
	d.mu.Lock()
	all := make([]*mirror, 0, len(d.mirrors))
	for _, name := range slices.Sorted(maps.Keys(d.mirrors)) {
		all = append(all, d.mirrors[name])
	}
	d.mu.Unlock()
	found := make([]*Figures, len(all))
	var wg sync.WaitGroup
	for i, m := range all {
		wg.Go(func() {
			if s, err := m.look(ctx); err == nil {
				found[i] = &Figures{m.name, s.Reads, s.Writes, s.ReadBytes, s.WriteBytes, s.Waiting, s.Oldest}
			}
		})
	}
	wg.Wait()
	var out []Figures
	for _, f := range found {
		if f != nil {
			out = append(out, *f)
		}
	}
	return out
}
