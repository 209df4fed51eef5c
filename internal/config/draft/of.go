package draft

import (
	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Of returns the answers that a cluster file gives, as far as there are
// questions for what is in it.
func Of(f *config.File) api.Answers {
	a := api.Answers{Cluster: string(f.Cluster)}
	for i := range f.Nodes {
		n := answer(&f.Nodes[i])
		switch {
		case !f.Nodes[i].Witness:
			a.Nodes = append(a.Nodes, n)
		case a.Third.Node == nil:
			a.Third = api.ThirdAnswer{Kind: api.ThirdWitness, Node: &n}
		}
	}
	if len(f.Arbitration) > 0 {
		a.Third.Kind = api.Third(f.Arbitration[0].Kind)
		for _, t := range f.Arbitration[0].Targets {
			a.Third.Targets = append(a.Third.Targets, t.String())
		}
	} else if f.Takeover == config.TakeoverFence && a.Third.Kind == "" {
		a.Third.Kind = api.ThirdFence
	}
	if a.Third.Kind == api.ThirdFence {
		a.Third.Fences = fences(f)
	}
	if len(f.Groups) > 0 {
		a.Group = group(&f.Groups[0])
	}
	return a
}

func answer(n *config.Node) api.NodeAnswer {
	a := api.NodeAnswer{Name: string(n.Name)}
	for _, x := range n.Addresses {
		a.Addresses = append(a.Addresses, x.String())
	}
	return a
}

func fences(f *config.File) []api.FenceAnswer {
	var out []api.FenceAnswer
	for i := range f.Nodes {
		n := &f.Nodes[i]
		for _, level := range n.Fence {
			for _, step := range level {
				d := f.Fence(step.Device)
				if d == nil || d.Agent == "" {
					continue
				}
				x := api.FenceAnswer{Node: string(n.Name), Agent: d.Agent, Options: d.Options}
				if step.Plug != string(n.Name) {
					x.Plug = step.Plug
				}
				out = append(out, x)
			}
		}
	}
	return out
}

// group takes the first resource of each kind.
func group(g *config.Group) *api.GroupAnswer {
	a := &api.GroupAnswer{Name: string(g.Name)}
	for i := range g.Resources {
		r := &g.Resources[i]
		switch {
		case r.FloatingIP != nil && a.Address == nil:
			a.Address = &api.AddressAnswer{Address: r.FloatingIP.Address.String(), Prefix: r.FloatingIP.Prefix, Device: r.FloatingIP.Device}
		case r.MirrorDisk != nil && a.Mirror == nil:
			a.Mirror = &api.MirrorAnswer{Data: r.MirrorDisk.Data, Meta: r.MirrorDisk.Meta, Mount: r.MirrorDisk.Mount, FS: r.MirrorDisk.FS}
		case r.Exec != nil && a.Program == nil:
			a.Program = &api.ProgramAnswer{Start: r.Exec.Start, Stop: r.Exec.Stop}
		}
	}
	return a
}
