package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/plan"
)

// disk takes its time, and notes what was done in which order.
type disk struct {
	takes time.Duration
	err   error
	mu    sync.Mutex
	log   []string
}

func (d *disk) note(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, what)
}

func (d *disk) Persist(*Persist) error {
	<-time.After(d.takes)
	d.note("written")
	return d.err
}

func (d *disk) Do(eff Effects) {
	if len(eff.Isolate) > 0 {
		d.note("isolated")
	}
}

// leased is a node that must isolate in half a second.
type leased struct{ guarded bool }

func (l leased) HarmlessWithin(cluster.Instant) (time.Duration, bool) {
	return 500 * time.Millisecond, l.guarded
}
func (l leased) Harmless() Effects { return Effects{Isolate: []Task{{}}} }

func TestPersistIsolatesInTime(t *testing.T) {
	broken := errors.New("input/output error")
	for name, tt := range map[string]struct {
		disk    *disk
		guarded bool
		want    []string
		late    time.Duration
	}{
		"fast":               {&disk{takes: 400 * time.Millisecond}, true, []string{"written"}, 0},
		"slow":               {&disk{takes: 2 * time.Second}, true, []string{"isolated", "written"}, 2 * time.Second},
		"slow, then broken":  {&disk{takes: 2 * time.Second, err: broken}, true, []string{"isolated", "written"}, 2 * time.Second},
		"nothing to isolate": {&disk{takes: 2 * time.Second}, false, []string{"written"}, 0},
		"broken at once":     {&disk{err: broken}, true, []string{"written"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				late, err := persist(tt.disk, leased{tt.guarded}, &Persist{})
				if late != tt.late || !errors.Is(err, tt.disk.err) || !slices.Equal(tt.disk.log, tt.want) {
					t.Errorf("late %v, error %v, %v", late, err, tt.disk.log)
				}
			})
		})
	}
}

// After a stall nothing is started or put back; stops go on.
func TestAfterStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLoop(nil, nil)
		task := Task{Group: config.Group{Name: "g"}, Epoch: 7}
		eff := Effects{Restore: []Task{task}, Ops: []Operation{
			{Task: task, Op: plan.Op{Resource: "ip", Start: true}}, {Task: task, Op: plan.Op{Resource: "web"}},
		}}
		l.afterStall(context.Background(), &eff, 3*time.Second)
		if eff.Restore != nil || len(eff.Ops) != 1 || eff.Ops[0].Op.Resource != "web" {
			t.Errorf("%+v", eff)
		}
		first, second := <-l.events, <-l.events
		if first.Log == nil || second.OpDone == nil || second.OpDone.Op.Resource != "ip" || second.OpDone.Why == "" || second.OpDone.Epoch != 7 {
			t.Errorf("%+v, %+v", first, second)
		}
	})
}
