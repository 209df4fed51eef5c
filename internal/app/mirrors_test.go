package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// mirrorDriver notes what it is told, in order.
type mirrorDriver struct {
	resource.Driver
	heard []string
}

func (m *mirrorDriver) Told(r cluster.ResourceName, s state.Mirror) {
	m.heard = append(m.heard, fmt.Sprintf("told %s %v", r, s.InSync))
}

func (m *mirrorDriver) Refused(r cluster.ResourceName, why string) {
	m.heard = append(m.heard, fmt.Sprintf("refused %s: %s", r, why))
}

func (m *mirrorDriver) Follow(_ context.Context, f *config.File) {
	m.heard = append(m.heard, "follow "+string(f.Cluster))
}

func TestMirrorsAreToldInOrder(t *testing.T) {
	driver := &mirrorDriver{}
	d := &Daemon{ctx: t.Context(), actor: &actor{drivers: map[config.ResourceKind]resource.Driver{config.KindMirrorDisk: driver, config.KindExec: nil}}}
	d.followDrivers(&config.File{Cluster: "web"})
	d.tellMirrors(engine.Effects{
		Mirrors: []engine.MirrorTold{
			{Resource: "md", Mirror: state.Mirror{InSync: []cluster.NodeName{"a"}}}, {Resource: "md", Mirror: state.Mirror{InSync: []cluster.NodeName{"a", "b"}}},
		},
		Refused: []engine.MirrorRefused{{Resource: "md", Why: "the group is gone"}},
	})
	want := []string{"follow web", "told md [a]", "told md [a b]", "refused md: the group is gone"}
	if !slices.Equal(driver.heard, want) {
		t.Errorf("heard %q, want %q", driver.heard, want)
	}
}

// A build without mirror disks, and one whose driver does not care, are told
// nothing.
func TestMirrorsWithoutADriver(*testing.T) {
	d := &Daemon{actor: &actor{}}
	d.tellMirrors(engine.Effects{Mirrors: []engine.MirrorTold{{Resource: "md"}}})
	d.followDrivers(&config.File{})
}

func TestTaskOfAMirrorDisk(t *testing.T) {
	a := &actor{cluster: "web", node: "a"}
	md, app := config.Resource{Name: "md"}, config.Resource{Name: "app"}
	task := engine.Task{Mirrors: map[cluster.ResourceName]state.Mirror{"md": {Rev: 7}}}
	if got := a.task(task, &md).Mirror; got == nil || got.Rev != 7 {
		t.Errorf("%+v", got)
	}
	if got := a.task(task, &app).Mirror; got != nil {
		t.Errorf("%+v", got)
	}
}

func TestUnknownVerbOfAMirror(t *testing.T) {
	_, err := (&Daemon{}).Mirror(t.Context(), "root", "md", "dance", api.MirrorOp{})
	var e *api.Error
	if !errors.As(err, &e) || e.Code != "unknown-verb" || e.Hint == "" {
		t.Error(err)
	}
}
