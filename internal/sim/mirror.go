package sim

import (
	"fmt"
	"slices"

	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
)

// copyHere is what the copy of a mirror disk on a node was told.
type copyHere struct {
	inSync  []cluster.NodeName
	told    int // how often
	refused []string
}

// tell notes what the copies on a node are told.
func (w *World) tell(n *Node, eff engine.Effects) {
	at := func(r cluster.ResourceName) *copyHere {
		if n.copies == nil {
			n.copies = map[cluster.ResourceName]*copyHere{}
		}
		if n.copies[r] == nil {
			n.copies[r] = &copyHere{}
		}
		return n.copies[r]
	}
	for _, t := range eff.Mirrors {
		c := at(t.Resource)
		before := c.inSync
		c.inSync, c.told = t.Mirror.InSync, c.told+1
		if d := w.disks[t.Resource]; d != nil {
			d.told(d.of(n), &t, before)
		}
	}
	for _, op := range eff.Ops {
		if op.Op.Start && len(op.Mirrors) > 0 {
			n.began = op.Mirrors
		}
	}
	for _, t := range eff.Refused {
		c := at(t.Resource)
		c.refused = append(c.refused, t.Why)
	}
}

// inSync has the active copy on a node ask for an in-sync set.
func (s *Scenario) inSync(args []string) error {
	if len(args) < 3 || s.world.nodes[cluster.NodeName(args[0])] == nil {
		return fmt.Errorf("insync NODE RESOURCE NODE…")
	}
	n, r := s.world.nodes[cluster.NodeName(args[0])], cluster.ResourceName(args[1])
	g := s.world.file.GroupOf(r)
	if g == nil {
		return fmt.Errorf("no resource %q", r)
	}
	base := uint64(0)
	if is := n.machine.State().Mirror(r); is != nil {
		base = is.Rev
	}
	s.world.step(n, engine.Event{Mirror: &engine.MirrorAsk{Resource: r, Epoch: n.active[key(g.Name, r)], Base: base, InSync: nodeNames(args[2:]), Why: "so it is"}})
	return nil
}

func nodeNames(args []string) []cluster.NodeName {
	var out []cluster.NodeName
	for _, a := range args {
		out = append(out, cluster.NodeName(a))
	}
	return out
}

// expectMirror looks at what is agreed on as NODE has it, at what the copy there
// was told last, or at why its latest ask was refused.
func (s *Scenario) expectMirror(verb string, args []string) error {
	if len(args) < 2 || s.world.nodes[cluster.NodeName(args[0])] == nil {
		return fmt.Errorf("%s NODE RESOURCE …", verb)
	}
	n, r, want := s.world.nodes[cluster.NodeName(args[0])], cluster.ResourceName(args[1]), nodeNames(args[2:])
	c := n.copies[r]
	if c == nil {
		c = &copyHere{}
	}
	if verb == "expect-refused" {
		if got := fmt.Sprint(len(c.refused)); got != args[2] {
			return fmt.Errorf("it was refused %s times: %q", got, c.refused)
		}
		return nil
	}
	if n.machine == nil {
		return fmt.Errorf("no daemon runs on %q", n.name)
	}
	if m := n.machine.State().Mirror(r); m == nil || !slices.Equal(m.InSync, want) {
		return fmt.Errorf("agreed is %+v", m)
	}
	if !slices.Equal(c.inSync, want) || c.told == 0 {
		return fmt.Errorf("the copy was told %v", c.inSync)
	}
	return nil
}

// mirrorKinds are what an operator asks of a mirror disk, by the words of the
// scenario.
var mirrorKinds = map[string]admission.Kind{
	"mirror-force": admission.MirrorForce, "mirror-acknowledge": admission.MirrorAcknowledge, "mirror-resolve": admission.MirrorResolve,
	"mirror-break": admission.MirrorBreak, "mirror-resume": admission.MirrorResume, "mirror-copy": admission.MirrorCopy,
	"mirror-verify": admission.MirrorVerify, "mirror-invalidate": admission.MirrorInvalidate,
}

// mirrorAsk returns the ask of a line: VERB RESOURCE [NODE].
func (s *Scenario) mirrorAsk(kind admission.Kind, args []string) admission.Ask {
	a := admission.Ask{Kind: kind, Resource: cluster.ResourceName(args[0]), Confirm: string(s.world.file.Cluster), Why: "for the story", Author: "admin"}
	if len(args) > 1 {
		a.Node = cluster.NodeName(args[1])
	}
	return a
}
