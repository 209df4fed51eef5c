package engine

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// What a step remembers of an earlier one is what it would find out anew.

func TestLocalGroupsByName(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := localGroups{at: map[cluster.GroupName]*localGroup{}}
		for range rapid.IntRange(1, 30).Draw(rt, "changes") {
			seen, were := g.byName, slices.Clone(g.byName)
			name := cluster.GroupName(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(rt, "name"))
			if rapid.Bool().Draw(rt, "put") {
				g.put(name, &localGroup{})
			} else {
				g.drop(name)
			}
			if !slices.Equal(seen, were) {
				rt.Fatal("it has changed under whoever passes through it")
			}
			want := slices.Sorted(maps.Keys(g.at))
			if len(want) != len(g.byName) {
				rt.Fatalf("%v, not %v", g.byName, want)
			}
			for i, l := range g.byName {
				if l.name != want[i] || l.localGroup != g.at[l.name] {
					rt.Fatalf("%v, not %v", g.byName, want)
				}
			}
		}
	})
}

func TestDeclaredDownFollowsTheLog(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &Machine{log: raft.NewMemoryStorage()}
		var entries []*raftpb.Entry // of the log, from index 1
		term := uint64(1)
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"append", "rewrite", "apply", "anew"}).Draw(rt, "what") {
			case "append":
				entries = append(entries, anEntry(rt, term, uint64(len(entries)+1)))
			case "rewrite": // another leader has another end of the log
				if term++; uint64(len(entries)) > m.applied {
					at := rapid.Uint64Range(m.applied, uint64(len(entries))-1).Draw(rt, "from")
					entries = append(entries[:at:at], anEntry(rt, term, at+1))
				}
			case "apply":
				m.applied = rapid.Uint64Range(m.applied, uint64(len(entries))).Draw(rt, "applied")
			case "anew":
				entries, m.applied, m.log = nil, 0, raft.NewMemoryStorage()
			}
			if m.applied < uint64(len(entries)) {
				must(m.log.Append(entries[m.applied:]))
			}
			for _, n := range []cluster.NodeName{"a", "b", "c"} {
				want := slices.ContainsFunc(entries[m.applied:], func(e *raftpb.Entry) bool { return slices.Contains(declaredIn(e), n) })
				if rapid.Bool().Draw(rt, "look") && m.declaredDown(n) != want {
					rt.Fatalf("%s is declared down: %v", n, !want)
				}
			}
		}
	})
}

// anEntry is an entry that may declare somebody down.
func anEntry(rt *rapid.T, term, index uint64) *raftpb.Entry {
	e := state.Entry{Nonce: fmt.Sprint(term, index)}
	if n := rapid.SampledFrom([]cluster.NodeName{"", "a", "b", "c"}).Draw(rt, "down"); n != "" {
		e.Commands = []state.Command{{Node: &state.SetNode{Name: n, State: cluster.NodeDown}}}
	}
	return &raftpb.Entry{Term: &term, Index: &index, Data: e.Encode()}
}
