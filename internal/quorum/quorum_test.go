package quorum

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

func pair() *config.File {
	return &config.File{Nodes: []config.Node{{Name: "CLP-1"}, {Name: "CLP-2"}}}
}

func TestYields(t *testing.T) {
	tests := map[string]struct {
		mine, other Incarnation
		want        bool
	}{
		"who has nothing takes what there is":          {Incarnation{}, Incarnation{1, "CLP-1"}, true},
		"nobody takes nothing":                         {Incarnation{1, "CLP-1"}, Incarnation{}, false},
		"nothing for nothing":                          {Incarnation{}, Incarnation{}, false},
		"the same life":                                {Incarnation{3, "CLP-2"}, Incarnation{3, "CLP-2"}, false},
		"a higher generation stays":                    {Incarnation{3, "CLP-1"}, Incarnation{2, "CLP-2"}, false},
		"a lower generation yields, first in the file": {Incarnation{2, "CLP-1"}, Incarnation{3, "CLP-2"}, true},
		"both alone: the first in the file stays":      {Incarnation{2, "CLP-1"}, Incarnation{2, "CLP-2"}, false},
		"both alone: the second in the file yields":    {Incarnation{2, "CLP-2"}, Incarnation{2, "CLP-1"}, true},
		"a node that is not in the file yields":        {Incarnation{2, "gone"}, Incarnation{2, "CLP-2"}, true},
		"nobody yields to a node not in the file":      {Incarnation{2, "CLP-2"}, Incarnation{2, "gone"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.mine.Yields(tt.other, pair()); got != tt.want {
				t.Errorf("%s yields to %s: %v", tt.mine, tt.other, got)
			}
		})
	}
}

// TestTheFileDecidesNotTheName: the order of the file counts, not of the
// alphabet.
func TestTheFileDecidesNotTheName(t *testing.T) {
	f := &config.File{Nodes: []config.Node{{Name: "zeta"}, {Name: "alpha"}}}
	if (Incarnation{2, "zeta"}).Yields(Incarnation{2, "alpha"}, f) || !(Incarnation{2, "alpha"}).Yields(Incarnation{2, "zeta"}, f) {
		t.Error("alpha stays, though the file lists zeta first")
	}
}

// TestOneSurvivor: whichever two lives meet, exactly one stays, and among any
// number there is one to which all others yield.
func TestOneSurvivor(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		names := []cluster.NodeName{"d", "b", "c", "a"}
		f := &config.File{}
		for _, n := range names {
			f.Nodes = append(f.Nodes, config.Node{Name: n})
		}
		names = append(names, "gone")
		lives := rapid.SliceOfNDistinct(rapid.Custom(func(rt *rapid.T) Incarnation {
			return Incarnation{cluster.Generation(rapid.IntRange(1, 3).Draw(rt, "generation")), rapid.SampledFrom(names).Draw(rt, "node")}
		}), 2, 6, func(i Incarnation) Incarnation { return i }).Draw(rt, "lives")
		survivors := 0
		for _, a := range lives {
			stays := true
			for _, b := range lives {
				if a == b {
					continue
				}
				if a.Yields(b, f) == b.Yields(a, f) {
					rt.Fatalf("%s and %s: both yield, or neither does", a, b)
				}
				stays = stays && !a.Yields(b, f)
			}
			if stays {
				survivors++
			}
		}
		if survivors != 1 {
			rt.Fatalf("%d survivors among %v", survivors, lives)
		}
	})
}

// TestGoingOnAloneWins: who goes on alone from a life raises its generation, so
// whoever stayed behind in that life, or a node without state, joins it.
func TestGoingOnAloneWins(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom([]cluster.NodeName{"CLP-1", "CLP-2", "gone"})
		old := Incarnation{cluster.Generation(rapid.Uint64Range(0, 1<<40).Draw(rt, "generation")), name.Draw(rt, "old")}
		solo := Incarnation{old.Generation + 1, name.Draw(rt, "solo")}
		if !old.Yields(solo, pair()) || solo.Yields(old, pair()) {
			rt.Fatalf("%s does not give way to %s", old, solo)
		}
	})
}

func TestIncarnationText(t *testing.T) {
	i := Incarnation{3, "CLP-1"}
	if i.String() != "3/CLP-1" || i.Blank() || !(Incarnation{}).Blank() {
		t.Errorf("%s, blank %v", i, i.Blank())
	}
	data, err := json.Marshal(i)
	var back Incarnation
	if err != nil || json.Unmarshal(data, &back) != nil || back != i {
		t.Errorf("%s came back as %+v (%v)", data, back, err)
	}
}

func TestArbitrate(t *testing.T) {
	ping := config.Arbitrator{Kind: config.ArbitratePing}
	none := config.Arbitrator{Kind: config.ArbitrateNone}
	fence := config.Arbitrator{Kind: config.ArbitrateFence}
	tests := map[string]struct {
		list  []config.Arbitrator
		ping  Ping
		want  Ruling
		fence Fence
	}{
		"no arbitration: nobody goes on":          {nil, PingReached, Stop, FenceUnknown},
		"ping: not asked yet":                     {[]config.Arbitrator{ping}, PingUnknown, Wait, FenceUnknown},
		"ping: a target answers":                  {[]config.Arbitrator{ping}, PingReached, GoOn, FenceUnknown},
		"ping: no target answers":                 {[]config.Arbitrator{ping}, PingLost, Stop, FenceUnknown},
		"none: both go on":                        {[]config.Arbitrator{none}, PingUnknown, GoOn, FenceUnknown},
		"none: whatever the targets say":          {[]config.Arbitrator{none}, PingLost, GoOn, FenceUnknown},
		"the first of the file decides: ping":     {[]config.Arbitrator{ping, none}, PingLost, Stop, FenceUnknown},
		"the first of the file decides: none":     {[]config.Arbitrator{none, ping}, PingLost, GoOn, FenceUnknown},
		"ping is not passed over while it waits":  {[]config.Arbitrator{ping, none}, PingUnknown, Wait, FenceUnknown},
		"a kind of a newer version goes on never": {[]config.Arbitrator{{Kind: "oracle"}}, PingReached, Stop, FenceDone},
		"fence: not tried yet":                    {[]config.Arbitrator{fence, none}, PingReached, Wait, FenceUnknown},
		"fence: it is off":                        {[]config.Arbitrator{fence, ping}, PingLost, GoOn, FenceDone},
		"fence: it failed, nothing after it":      {[]config.Arbitrator{fence}, PingReached, Stop, FenceFailed},
		"fence: it failed, ping is asked":         {[]config.Arbitrator{fence, ping}, PingReached, GoOn, FenceFailed},
		"fence: it failed, ping says no":          {[]config.Arbitrator{fence, ping}, PingLost, Stop, FenceFailed},
		"fence: it failed, and none goes on":      {[]config.Arbitrator{fence, none}, PingLost, GoOn, FenceFailed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, why := Arbitrate(tt.list, Facts{Ping: tt.ping, Fence: tt.fence})
			if got != tt.want || why == "" {
				t.Errorf("ruling %d (%s), want %d", got, why, tt.want)
			}
		})
	}
}

// TestPingLetsOneSideGoOn: with ping, where only one side of a pair reaches a
// target, only that side goes on, and the other stops.
func TestPingLetsOneSideGoOn(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		answer := rapid.SampledFrom([]Ping{PingUnknown, PingReached, PingLost})
		here, there := answer.Draw(rt, "here"), answer.Draw(rt, "there")
		list := []config.Arbitrator{{Kind: config.ArbitratePing}}
		if rapid.Bool().Draw(rt, "a second arbitrator") {
			list = append(list, config.Arbitrator{Kind: config.ArbitrateNone})
		}
		a, _ := Arbitrate(list, Facts{Ping: here})
		b, _ := Arbitrate(list, Facts{Ping: there})
		if a == GoOn && b == GoOn && !(here == PingReached && there == PingReached) {
			rt.Fatalf("both go on with %d here and %d there", here, there)
		}
		if a == GoOn && here != PingReached || a == Stop && here != PingLost {
			rt.Fatalf("ruling %d with %d here", a, here)
		}
	})
}
