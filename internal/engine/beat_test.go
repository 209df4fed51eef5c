package engine

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/quorum"
)

func someBeat(t *rapid.T) beat {
	name := rapid.StringMatching(`[a-z0-9-]{0,16}`)
	names := func(what string) (out []cluster.NodeName) {
		for _, n := range rapid.SliceOfN(rapid.StringMatching(`[a-z0-9-]{1,16}`), 0, 5).Draw(t, what) {
			out = append(out, cluster.NodeName(n))
		}
		return out
	}
	b := beat{
		Incarnation: quorum.Incarnation{Generation: cluster.Generation(rapid.Uint64().Draw(t, "generation")), Node: cluster.NodeName(name.Draw(t, "by"))},
		Boot:        name.Draw(t, "boot"), Daemon: name.Draw(t, "daemon"), AckDaemon: name.Draw(t, "ack daemon"), Lead: cluster.NodeName(name.Draw(t, "lead")),
		Sent: cluster.Instant(rapid.Int64Min(1).Draw(t, "sent")), Ack: cluster.Instant(rapid.Int64Min(0).Draw(t, "ack")),
		WaitOver: rapid.Bool().Draw(t, "wait over"), Departing: rapid.Bool().Draw(t, "departing"), Acks: names("acks"), Applied: rapid.Uint64().Draw(t, "applied"), Life: rapid.Uint64().Draw(t, "life"), Deaf: rapid.Bool().Draw(t, "deaf"), Resets: rapid.IntRange(0, maxToldResets).Draw(t, "resets"),
	}
	for _, g := range names("active") {
		b.Active = append(b.Active, cluster.GroupName(g))
	}
	for i := range rapid.IntRange(0, 8).Draw(t, "heard") {
		b.Heard = append(b.Heard, i)
	}
	return b
}

func TestABeatArrivesWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := someBeat(t)
		got, ok := decodeBeat(b.encode())
		if diff := cmp.Diff(b, got); !ok || diff != "" {
			t.Fatal(ok, diff)
		}
	})
}

// A later version may say more.
func TestABeatWithMore(t *testing.T) {
	b := beat{Sent: 5, Boot: "x"}
	data := protowire.AppendString(protowire.AppendTag(b.encode(), 99, protowire.BytesType), "new")
	data = protowire.AppendFixed64(protowire.AppendTag(data, 5, protowire.Fixed64Type), 7) // a known field of another type
	if got, ok := decodeBeat(data); !ok || cmp.Diff(b, got) != "" {
		t.Error(ok, got)
	}
}

func FuzzDecodeBeat(f *testing.F) {
	b := beat{Incarnation: quorum.Incarnation{Generation: 3, Node: "CLP-1"}, Boot: "b", Daemon: "d", Sent: 1, Ack: 2, Active: []cluster.GroupName{"g"}, Heard: []int{0, 1}}
	f.Add(b.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, ok := decodeBeat(data)
		if !ok {
			return
		}
		again, ok := decodeBeat(b.encode())
		if diff := cmp.Diff(b, again); !ok || diff != "" {
			t.Error(ok, diff)
		}
	})
}
