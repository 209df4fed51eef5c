package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

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

func (m *mirrorDriver) Told(r cluster.ResourceName, s state.Mirror, _ uint32) {
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

// What is asked of a copy is refused where there is none: on a witness, for one.
func TestACopyThatIsNotHere(t *testing.T) {
	for _, verb := range []string{"look", "keep"} {
		_, err := (&Daemon{node: "w"}).Mirror(t.Context(), "root", "md", verb, api.MirrorOp{})
		var e *api.Error
		if !errors.As(err, &e) || e.Code != "no-such-copy" || e.Hint == "" {
			t.Errorf("%s: %v", verb, err)
		}
	}
}

// ports passes on the refusals that a loop wants told.
type ports struct{ refused chan engine.MirrorRefused }

func (ports) Persist(*engine.Persist) error { return nil }

func (p ports) Do(eff engine.Effects) {
	for _, r := range eff.Refused {
		p.refused <- r
	}
}

// What a copy asks and says of itself reaches the engine, and the answer comes
// back.
func TestMirrorsReachTheEngine(t *testing.T) {
	const text = `cluster: web
nodes: {a: {addresses: [10.0.0.1]}, b: {addresses: [10.0.0.2]}}
groups: {g: {startup: manual, resources: {md: {kind: mirror-disk, data: /d, meta: /m, mount: /data, fs: ext4}}}}
`
	first, err := engine.Bootstrap("a", text, "root", time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	m, err := engine.New(engine.Options{Self: "a", Boot: "b1", Daemon: "d1", Now: engine.Now(), NextSeq: 1, HardState: first.HardState, Snapshot: first.Snapshot, Meta: first.Meta})
	if err != nil {
		t.Fatal(err)
	}
	out := ports{make(chan engine.MirrorRefused, 1)}
	d := &Daemon{ctx: t.Context(), loop: engine.NewLoop(m, out)}
	ended := make(chan error, 1)
	go func() { ended <- d.loop.Run(t.Context()) }()
	d.askMirror(resource.MirrorAsk{Resource: "md", Epoch: 1, Base: 1, InSync: []cluster.NodeName{"a"}, Why: "so it is"})
	select {
	case r := <-out.refused:
		if r.Resource != "md" || r.Why == "" {
			t.Errorf("%+v", r)
		}
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(10 * time.Second):
		t.Fatal("the engine says nothing about it")
	}
	d.mirrorStatus(resource.MirrorStatus{Resource: "md", Copy: api.MirrorCopy{State: api.MirrorCopying, Percent: 12}})
	if _, err := d.loop.Step(t.Context(), engine.Event{}); err != nil {
		t.Fatal(err)
	}
	if err := d.inspect(t.Context(), func(m *engine.Machine) {
		if c := m.Status().Mirrors[0].Copies[0]; c.Node != "a" || c.State != api.MirrorCopying || c.Percent != 12 {
			t.Errorf("%+v", c)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
