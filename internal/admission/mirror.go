package admission

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// What is asked of a mirror disk, which is Ask.Resource.
const (
	MirrorForce       Kind = "mirror-force"       // Node's copy counts as complete, though it does not look so; needs Confirm and Why
	MirrorAcknowledge Kind = "mirror-acknowledge" // that it was forced
	MirrorResolve     Kind = "mirror-resolve"     // what only Node's copy holds may be overwritten; needs Confirm and Why
	MirrorBreak       Kind = "mirror-break"       // nothing is copied by itself
	MirrorResume      Kind = "mirror-resume"      //
	MirrorCopy        Kind = "mirror-copy"        // what differs, or with Thorough everything
	MirrorVerify      Kind = "mirror-verify"      // both copies are compared; with Thorough what differs is copied
	MirrorGrow        Kind = "mirror-grow"        // the new size of data devices that have grown is used
	MirrorInvalidate  Kind = "mirror-invalidate"  // Node's copy does not count as complete, though it looks so
)

// mirrorAsk is an ask about a mirror disk with what it is about.
type mirrorAsk struct {
	Ask
	m  *state.Mirror
	g  *config.Group
	gs *state.Group
}

func admitMirror(s *state.State, a Ask) (state.Entry, *api.Error) {
	m, g := s.Mirror(a.Resource), s.File().GroupOf(a.Resource)
	if m == nil || g == nil || s.Groups[g.Name] == nil {
		return state.Entry{}, noMirror(s, a.Resource)
	}
	a.Author, a.Why = cmp.Or(a.Author, "unknown"), strings.TrimSpace(a.Why)
	x := mirrorAsk{a, m, g, s.Groups[g.Name]}
	for _, refuses := range []func() *api.Error{func() *api.Error { return x.unconfirmed(s.File().Cluster) }, x.unnamed, x.unfitting} {
		if no := refuses(); no != nil {
			return state.Entry{}, no
		}
	}
	verb, text := x.means()
	return done(a, text, state.Command{OperateMirror: &state.OperateMirror{
		Resource: a.Resource, Verb: verb, Node: a.Node, Why: cmp.Or(a.Why, "asked for"), Author: a.Author, Cause: a.Cause, Time: a.Wall,
	}}), nil
}

func noMirror(s *state.State, r cluster.ResourceName) *api.Error {
	var names []string
	for i := range s.File().Groups {
		for _, m := range s.File().Groups[i].Mirrors() {
			names = append(names, string(m.Name))
		}
	}
	hint := "the cluster file has no mirror disk"
	if len(names) > 0 {
		hint = "the mirror disks are: " + strings.Join(names, ", ")
	}
	return refuse("no-such-mirror", hint, "there is no mirror disk %q", r)
}

// unconfirmed refuses what gives writes up unless somebody has typed the name
// of the cluster and said why.
func (x *mirrorAsk) unconfirmed(name cluster.Name) *api.Error {
	if x.Kind != MirrorForce && x.Kind != MirrorResolve {
		return nil
	}
	switch {
	case x.Confirm == "":
		return refuse("not-confirmed", fmt.Sprintf("writes may be lost by it: type the name of the cluster with --cluster-name %s", name), "this is not done without a confirmation")
	case x.Confirm != string(name):
		return refuse("not-confirmed", fmt.Sprintf("it is %s", name), "%q is not the name of this cluster", x.Confirm)
	case x.Why == "":
		return refuse("bad-request", "say why with --reason: it stays in the log and in tasuki status", "writes are not given up without a reason")
	}
	return nil
}

// unnamed refuses what is about the copy of a node and names none.
func (x *mirrorAsk) unnamed() *api.Error {
	if x.Kind != MirrorForce && x.Kind != MirrorResolve && x.Kind != MirrorInvalidate {
		return nil
	}
	if !slices.Contains(x.g.Nodes, x.Node) {
		return refuse("no-such-copy", fmt.Sprintf("its copies are on %v", x.g.Nodes), "mirror disk %s has no copy on %q", x.Resource, x.Node)
	}
	return nil
}

func (x *mirrorAsk) unfitting() *api.Error {
	if len(x.m.InSync) == 0 && x.Kind != MirrorBreak && x.Kind != MirrorResume {
		return refuse("not-constructed", fmt.Sprintf("tasuki group start %s constructs it from the node where it starts", x.g.Name), "mirror disk %s was never constructed", x.Resource)
	}
	switch x.Kind {
	case MirrorForce:
		return x.unforceable()
	case MirrorResolve, MirrorInvalidate:
		return x.undiscardable()
	case MirrorCopy, MirrorVerify, MirrorGrow:
		return x.uncopyable()
	case MirrorAcknowledge:
		if x.m.Forced == nil {
			return refuse("not-forced", "nothing is to be done", "no copy of mirror disk %s was forced, or it is acknowledged already", x.Resource)
		}
	case MirrorBreak:
		if x.m.Paused != nil {
			return refuse("already-broken", fmt.Sprintf("tasuki mirror resume %s", x.Resource), "mirror disk %s was broken by %s already", x.Resource, x.m.Paused.Author)
		}
	case MirrorResume:
		if x.m.Paused == nil {
			return refuse("not-broken", "nothing is to be done", "mirror disk %s is not broken: it copies by itself", x.Resource)
		}
	}
	return nil
}

func (x *mirrorAsk) unforceable() *api.Error {
	switch {
	case x.gs.Owner != "":
		return refuse("group-active", fmt.Sprintf("tasuki group stop %s first, if its writes may be lost", x.g.Name),
			"group %s is active on %s: no other copy can be made the latest one meanwhile", x.g.Name, x.gs.Owner)
	case x.m.Has(x.Node):
		return refuse("already-in-sync", fmt.Sprintf("tasuki group start %s --to %s", x.g.Name, x.Node), "the copy of %s on %s is complete, nothing is to be forced", x.Resource, x.Node)
	case x.Blank:
		return refuse("copy-blank", fmt.Sprintf("bring %s back, which has the complete copy; if it is lost for good, take %s out of the cluster file and put it in again: it is made anew, and empty", x.m.InSync[0], x.Resource),
			"the copy of %s on %s was never made: there is nothing on it to go on with", x.Resource, x.Node)
	}
	return nil
}

func (x *mirrorAsk) undiscardable() *api.Error {
	others := slices.DeleteFunc(slices.Clone(x.g.Nodes), func(n cluster.NodeName) bool { return n == x.Node })
	switch {
	case x.gs.Owner == x.Node:
		return refuse("copy-active", fmt.Sprintf("tasuki group stop %s, then tasuki mirror force %s --node %v, if its writes may be lost", x.g.Name, x.Resource, others[0]),
			"group %s is active on %s, with that copy", x.g.Name, x.Node)
	case x.m.Has(x.Node) && len(x.m.InSync) == 1:
		return refuse("last-copy", fmt.Sprintf("tasuki mirror force %s --node %v makes the other one the latest, with the writes that it has", x.Resource, others[0]),
			"the copy of %s on %s is the only complete one", x.Resource, x.Node)
	case x.Kind == MirrorInvalidate && !x.m.Has(x.Node):
		return refuse("not-in-sync", fmt.Sprintf("tasuki mirror copy %s brings it up to date", x.Resource), "the copy of %s on %s is out of date already", x.Resource, x.Node)
	}
	return nil
}

func (x *mirrorAsk) uncopyable() *api.Error {
	complete := len(x.m.InSync) == len(x.g.Nodes)
	switch {
	case x.gs.Owner == "":
		return refuse("not-active", fmt.Sprintf("tasuki group start %s", x.g.Name), "group %s is not active, and only an active copy is copied from", x.g.Name)
	case x.Kind == MirrorGrow && !complete:
		return refuse("not-in-sync", "tasuki mirror status shows how far it is", "one copy of %s is out of date: it grows when both are complete", x.Resource)
	case x.Kind == MirrorVerify && !complete:
		return refuse("not-in-sync", "tasuki mirror status shows how far it is", "one copy of %s is out of date: there is nothing to compare", x.Resource)
	case x.Kind == MirrorCopy && !x.Thorough && complete:
		return refuse("already-in-sync", "tasuki mirror verify compares them, tasuki mirror copy --full copies everything", "both copies of %s are complete", x.Resource)
	}
	return nil
}

// means returns the command that the ask is, and what is answered.
func (x *mirrorAsk) means() (state.MirrorVerb, string) {
	switch x.Kind {
	case MirrorForce:
		return state.MirrorForce, fmt.Sprintf("the copy of %s on %s counts as complete now", x.Resource, x.Node)
	case MirrorAcknowledge:
		return state.MirrorAcknowledge, fmt.Sprintf("that %s was forced is acknowledged", x.Resource)
	case MirrorResolve:
		return state.MirrorResolve, fmt.Sprintf("what only the copy of %s on %s holds is overwritten as soon as the other one is active", x.Resource, x.Node)
	case MirrorBreak:
		return state.MirrorBreak, fmt.Sprintf("%s is broken: nothing is copied until it is resumed", x.Resource)
	case MirrorResume:
		return state.MirrorResume, fmt.Sprintf("%s copies by itself again", x.Resource)
	case MirrorInvalidate:
		return state.MirrorInvalidate, fmt.Sprintf("the copy of %s on %s counts as out of date now", x.Resource, x.Node)
	case MirrorCopy:
		if x.Thorough {
			return state.MirrorVerb(state.OrderFull), fmt.Sprintf("a full copy of %s is ordered", x.Resource)
		}
		return state.MirrorVerb(state.OrderResync), fmt.Sprintf("a copy of what differs of %s is ordered", x.Resource)
	case MirrorGrow:
		return state.MirrorVerb(state.OrderGrow), fmt.Sprintf("%s grows to the size that both data devices have now, which the log tells; then grow the file system on it", x.Resource)
	}
	if x.Thorough {
		return state.MirrorVerb(state.OrderVerifyRepair), fmt.Sprintf("a comparison of %s is ordered; what differs is copied from the active copy", x.Resource)
	}
	return state.MirrorVerb(state.OrderVerify), fmt.Sprintf("a comparison of %s is ordered", x.Resource)
}

// keepsCopies says why the file would leave a mirror disk without its complete
// copy, or pull a copy from under the active one; nil if it would not.
func keepsCopies(s *state.State, f *config.File) *api.Error {
	for i := range s.File().Groups {
		old := &s.File().Groups[i]
		for _, r := range old.Mirrors() {
			will, m := f.GroupOf(r.Name), s.Mirror(r.Name)
			if will == nil || m == nil || will.Resource(r.Name).MirrorDisk == nil {
				continue
			}
			here := func(n cluster.NodeName) bool { return slices.Contains(will.Nodes, n) }
			gone := slices.ContainsFunc(old.Nodes, func(n cluster.NodeName) bool { return !here(n) })
			switch gs := s.Groups[old.Name]; {
			case gone && gs != nil && gs.Owner != "":
				return refuse("config-group-active", fmt.Sprintf("tasuki group stop %s, apply, then start it again", old.Name),
					"group %s is active on %s and the copies of its mirror disk %s cannot go elsewhere meanwhile", old.Name, gs.Owner, r.Name)
			case len(m.InSync) > 0 && !slices.ContainsFunc(m.InSync, here):
				return refuse("config-mirror", fmt.Sprintf("keep %s in the group, or take the mirror disk out of the file and make a new one", m.InSync[0]),
					"the only complete copy of %s is on %v, which the new file takes out of group %s", r.Name, m.InSync[0], will.Name)
			}
		}
	}
	return nil
}
