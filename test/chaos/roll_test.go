package chaos_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// role says whom a fault hits: it is rolled before, and resolved when it comes.
type role string

const (
	roleOwner role = "owner" // of the service, as the client sees it
	roleOther role = "other" // the first that could own it and does not
	roleAny   role = "any"
)

// rolled is one fault as the seed says.
type rolled struct {
	kind   string
	who    role
	member int           // for roleAny
	peer   int           // the other end, counted from the member
	nic    string        // eth0 or eth1
	all    bool          // networks
	oneWay bool          // 1: what the member sends is lost
	away   bool          // oneWay: what it receives
	client bool          // cut off: from the client and the gate too
	part   int           // of the packets, in percent; rate: for 5 kbit/s each
	length time.Duration // until it is undone
	after  time.Duration // from the begin of its round
}

// roundPlan is one or two faults, and how long all is well after them.
type roundPlan struct {
	faults []rolled
	calm   time.Duration
}

// kinds of faults, how often each comes, and by which numbers the catalogue of
// faults in docs/reliability.md knows it.
var kinds = []struct {
	name   string
	weight int
	ids    string
}{
	{"kill daemon", 3, "F01 F10"},
	{"kill again", 2, "F02"},
	{"stop daemon", 3, "F03"},
	{"memory", 1, "F05"},
	{"files", 2, "F06"},
	{"processes", 1, "F06"},
	{"cpu", 2, "F07"},
	{"power off", 2, "F12"},
	{"reboot", 2, "F13"},
	{"shut down", 2, "F14"},
	{"one returns", 1, "F17"},
	{"all off", 1, "F18"},
	{"pause", 4, "F22 F23"},
	{"cut", 3, "F29 F31"},
	{"cut one way", 3, "F30"},
	{"cut off", 4, "F29"},
	{"pull", 3, "F31"},
	{"flap", 2, "F34"},
	{"loss", 3, "F35"},
	{"rate", 2, "F36 F40"},
	{"twice", 1, "F38"},
	{"corrupt", 2, "F39"},
	{"mtu", 2, "F42"},
	{"reject", 2, "F43"},
	{"address", 3, "F44 F45"},
	{"arp", 2, "F48"},
	{"stranger", 2, "F49"},
	{"disk full", 3, "F58"},
	{"read-only", 2, "F63"},
	{"move", 3, "F93"},
	{"stop and start", 1, "F93"},
	{"apply", 1, "F93"},
}

func kindNames() (names []string) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// roller rolls rounds.
type roller struct {
	rng     *rand.Rand
	members int
	longest time.Duration
	only    string
}

// newRoller returns a roller whose rounds depend on its arguments alone. A run
// of less than two minutes has short faults only.
func newRoller(s site, seed uint64, minutes float64, only string) *roller {
	r := &roller{rng: rand.New(rand.NewPCG(seed, 0x7461737 /* any */)), members: len(s.members), longest: 20 * time.Second, only: only}
	if minutes < 2 {
		r.longest = 3 * time.Second
	}
	return r
}

func (r *roller) round() roundPlan {
	p := roundPlan{faults: []rolled{r.fault()}}
	if second := r.fault(); r.rng.IntN(4) == 0 {
		second.after = time.Duration(r.rng.Int64N(int64(p.faults[0].length + time.Second)))
		p.faults = append(p.faults, second)
	}
	p.calm = time.Duration(r.rng.Int64N(int64(4 * time.Second)))
	return p
}

func (r *roller) fault() rolled {
	f := rolled{
		kind: r.kind(), who: roleOwner, member: r.rng.IntN(r.members), peer: 1 + r.rng.IntN(r.members-1),
		nic: [...]string{"eth0", "eth1"}[r.rng.IntN(2)], all: r.rng.IntN(2) == 0,
		away: r.rng.IntN(2) == 0, client: r.rng.IntN(2) == 0, part: 1 + r.rng.IntN(30), length: r.span(),
	}
	switch r.rng.IntN(4) {
	case 0:
		f.who = roleOther
	case 1:
		f.who = roleAny
	}
	f.oneWay = f.kind == "cut one way"
	switch f.kind {
	case "kill daemon", "reboot", "move", "apply":
		f.length = 0
	case "cpu":
		f.length = min(f.length, 5*time.Second)
	}
	return f
}

func (r *roller) kind() string {
	if r.only != "" {
		if !slices.Contains(kindNames(), r.only) {
			panic(fmt.Sprintf("there is no fault %q", r.only))
		}
		r.rng.IntN(2)
		return r.only
	}
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	n := r.rng.IntN(sum)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			return k.name
		}
	}
	return ""
}

// span is a length from 0.2 s up, short ones as often as long ones.
func (r *roller) span() time.Duration {
	const shortest = 200 * time.Millisecond
	return time.Duration(float64(shortest) * math.Pow(float64(r.longest)/float64(shortest), r.rng.Float64()))
}
