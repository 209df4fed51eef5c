package app

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/monitor"
)

// codeCannotWatch is the number of a monitor that cannot watch at all.
const codeCannotWatch = 99

// monitors runs the drivers of the monitors that the file gives this node.
type monitors struct {
	node    cluster.NodeName
	drivers map[config.MonitorKind]monitor.Driver
	post    func(engine.Event)
	log     *slog.Logger

	mu      sync.Mutex
	running map[cluster.MonitorName]*runningMonitor
}

type runningMonitor struct {
	config config.Monitor
	stop   context.CancelCauseFunc
	done   chan struct{}
}

// follow starts, stops and restarts drivers as the file asks. It waits for
// those that stop.
func (s *monitors) follow(ctx context.Context, f *config.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[cluster.MonitorName]config.Monitor{}
	for _, m := range f.Monitors {
		if slices.Contains(m.Nodes, s.node) {
			wanted[m.Name] = m
		}
	}
	for name, r := range s.running {
		if m, keep := wanted[name]; !keep || !reflect.DeepEqual(m, r.config) {
			r.stop(nil)
			<-r.done
			delete(s.running, name)
		}
	}
	for name, m := range wanted {
		if s.running[name] != nil {
			continue
		}
		mctx, stop := context.WithCancelCause(ctx)
		r := &runningMonitor{config: m, stop: stop, done: make(chan struct{})}
		s.running[name] = r
		go s.watch(mctx, f.Cluster, r)
	}
}

// watch runs one driver; one that cannot watch is bad, and is tried again.
func (s *monitors) watch(ctx context.Context, c cluster.Name, r *runningMonitor) {
	defer close(r.done)
	m := r.config
	for {
		err := fmt.Errorf("this build has no monitors of kind %s", m.Kind)
		if d := s.drivers[m.Kind]; d != nil {
			err = d.Watch(ctx, monitor.Env{Cluster: c, Node: s.node}, m, func(p monitor.Probe) {
				s.post(engine.Event{Probe: &engine.Probe{Monitor: m.Name, Good: p.Good, Code: p.Code, Text: p.Text}})
			})
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Warn("a monitor cannot watch", "monitor", m.Name, "error", err)
			s.post(engine.Event{Probe: &engine.Probe{Monitor: m.Name, Code: codeCannotWatch, Text: err.Error()}})
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Second):
		}
	}
}

// stop ends all drivers, with a cause that they may know, and waits for them.
func (s *monitors) stop(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, r := range s.running {
		r.stop(cause)
		<-r.done
		delete(s.running, name)
	}
}
