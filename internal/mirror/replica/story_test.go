package replica

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
)

// storyTime is how long faults go on in one story.
const storyTime = 40 * time.Second

// faults of a story, each with how often it comes.
var faults = []struct {
	name string
	do   func(p *pair)
}{
	{"kill", func(p *pair) { // the process ends, and another goes on
		h := p.hosts[p.rng.IntN(2)]
		if !h.on {
			return
		}
		role := Standby
		if p.owner == h.n && h.core.role == Active {
			role = Active
		}
		h.stop(false)
		if p.owner == h.n && role == Standby { // it was on its way
			p.owner = -1
			p.after(100*time.Millisecond, p.place)
		}
		p.after(p.ms(5, 400), func() {
			if h.on {
				return
			}
			if role == Active && p.owner != h.n {
				role = Standby
			}
			h.start(role)
			if role == Active && p.owner == h.n && h.on {
				p.client.attach(h)
			}
		})
	}},
	{"crash", func(p *pair) { p.crash(p.hosts[p.rng.IntN(2)]) }},
	{"crash both", func(p *pair) {
		p.crash(p.hosts[0])
		p.after(p.ms(0, 300), func() { p.crash(p.hosts[1]) })
	}},
	{"cut", func(p *pair) {
		p.cut = true
		for _, h := range p.hosts {
			life := h.life
			p.after(p.ms(20, 200), func() { h.drop(life, "silent") })
		}
		p.after(p.ms(50, 4000), func() { p.cut = false })
	}},
	{"blip", func(p *pair) { // the connections break and can be made again at once
		for _, h := range p.hosts {
			life := h.life
			p.after(p.ms(0, 10), func() { h.drop(life, "reset") })
		}
	}},
	{"move", (*pair).move},
	{"isolate", (*pair).isolate},
	{"mute", func(p *pair) { // consensus takes long
		i := p.rng.IntN(2)
		p.mute[i] = true
		p.after(p.ms(50, 2000), func() { p.mute[i] = false; p.tell() })
	}},
	{"bad disk", func(p *pair) {
		h := p.hosts[p.rng.IntN(2)]
		if h.on && p.rng.IntN(3) == 0 {
			h.fails = 1
			p.after(p.ms(100, 300), func() { h.fails = 0 })
		}
	}},
	{"slow", func(p *pair) {
		h := p.hosts[p.rng.IntN(2)]
		h.slow = p.ms(1, 100)
		p.after(p.ms(100, 2000), func() { h.slow = 0 })
	}},
	{"freeze", func(p *pair) { // isolated, and the lease comes back
		if p.owner < 0 {
			return
		}
		h := p.hosts[p.owner]
		if !h.on || h.frozen {
			return
		}
		life := h.life
		h.core.Freeze()
		p.after(p.ms(10, 500), func() {
			if h.on && h.life == life {
				h.core.Thaw()
				h.carry()
			}
		})
	}},
	{"verify", func(p *pair) {
		for _, h := range p.hosts {
			if h.on && h.core.role == Active {
				h.core.Verify(false)
				h.carry()
			}
		}
	}},
	{"pause", func(p *pair) {
		for _, h := range p.hosts {
			if h.on && h.core.role == Active {
				life := h.life
				h.core.Ordered(Neither, true)
				h.carry()
				p.after(p.ms(100, 2000), func() {
					if h.on && h.life == life {
						h.core.Ordered(Neither, false)
						h.carry()
					}
				})
			}
		}
	}},
}

// crash takes the power from a host; somebody else may take the group over, and
// it comes back.
func (p *pair) crash(h *host) {
	if !h.on {
		return
	}
	owned := p.owner == h.n
	h.stop(p.lossy)
	if owned {
		p.after(p.ms(200, 600), func() { // the lease ends
			if p.owner == h.n && (!h.on || h.core.role != Active) {
				p.owner = -1
				p.place()
			}
		})
	}
	p.after(p.ms(100, 5000), func() {
		if !h.on {
			h.start(Standby)
		}
	})
}

// isolate cuts the owner off from everybody: it freezes, and another takes over.
func (p *pair) isolate() {
	if p.owner < 0 || p.cut {
		return
	}
	h := p.hosts[p.owner]
	if !h.on || h.core.role != Active || p.client.server != h || p.client.stop {
		return
	}
	life := h.life
	p.cut, p.mute[h.n] = true, true
	p.after(p.ms(150, 300), func() {
		if h.on && h.life == life {
			h.frozen = true
			h.core.Freeze()
		}
	})
	p.after(320*time.Millisecond, func() {
		if !h.on || h.life != life || p.owner != h.n || !h.frozen {
			return
		}
		p.client.lostServer()
		p.owner = -1
		p.place()
	})
	p.after(p.ms(400, 3000), func() {
		p.cut, p.mute[h.n] = false, false
		p.tell()
		if !h.on || h.life != life || !h.frozen {
			return
		}
		h.frozen = false
		if p.owner == h.n { // nobody could take it
			h.core.Thaw()
			h.carry()
			return
		}
		h.core.Abort()
		h.carry()
		h.core.Demote()
		h.carry()
	})
	for _, x := range p.hosts {
		life := x.life
		p.after(p.ms(100, 250), func() { x.drop(life, "silent") })
	}
}

// story runs one seed and returns what it broke, or "".
func story(seed uint64, keep bool) *pair {
	p := newPair(seed, seed%2 == 1)
	if seed%7 == 3 {
		p.hosts[0].async, p.hosts[1].async = false, false
	}
	p.hosts[0].start(Standby)
	p.hosts[1].start(Standby)
	p.place()
	p.run(2 * time.Second)
	for p.now < storyTime && p.broken == "" {
		f := faults[p.rng.IntN(len(faults))]
		p.counting["fault: "+f.name]++
		p.say("--- %s", f.name)
		f.do(p)
		p.run(p.ms(5, 2500))
	}
	p.calm()
	return p
}

// calm ends all faults: what can be in order must be, soon.
func (p *pair) calm() {
	p.run(6 * time.Second)
	p.cut, p.mute = false, [2]bool{}
	for _, h := range p.hosts {
		h.slow, h.fails = 0, 0
		if h.on && h.meta.super != nil && h.core.broken != "" || h.on && h.core.sup.Failed {
			p.say("the disk of %s is replaced", h)
			owned := p.owner == h.n
			if owned && p.in[1-h.n] {
				p.crash(h)
			}
		}
	}
	p.tell()
	p.run(12 * time.Second)
	for _, h := range p.hosts { // an operator tries a disk again that had failed
		if h.on && h.core.sup.Failed {
			h.core.sup.Failed, h.core.broken = false, ""
		}
	}
	p.run(30 * time.Second)
	if p.broken != "" {
		return
	}
	if p.owner < 0 || p.client.server == nil {
		p.breaks("nobody is active after the faults have ended (owner %d)", p.owner)
		return
	}
	h := p.hosts[p.owner]
	if !p.in[0] || !p.in[1] || h.core.phase != joined {
		p.breaks("not in sync after the faults have ended: set %v, phase %s, marks %d, relation %s", p.in, h.core.phase, h.core.marks.Count(), h.core.relation)
		return
	}
	p.client.stop = true
	p.run(2 * time.Second)
	for b := range pairBlocks {
		if x, y := p.hosts[0].disk.read(b), p.hosts[1].disk.read(b); x != y {
			p.breaks("block %d differs: %d and %d", b, x, y)
			return
		}
	}
}

var (
	seeds   = flag.Int("pair-seeds", 60, "stories of two copies to tell")
	oneSeed = flag.Uint64("pair-seed", 0, "tell this story alone, with its log")
)

// TestStories tells stories of random faults to two copies.
func TestStories(t *testing.T) {
	if *oneSeed > 0 {
		p := story(*oneSeed, true)
		fmt.Fprintln(os.Stderr, strings.Join(p.log, "\n"))
		if p.broken != "" {
			t.Fatal(p.broken)
		}
		return
	}
	n := *seeds
	if s := os.Getenv("PAIR_SEEDS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	counts := map[string]int{}
	done, bad := 0, 0
	for seed := uint64(1); seed <= uint64(n); seed++ {
		p := story(seed, false)
		for k, v := range p.counting {
			counts[k] += v
		}
		done += p.client.done
		if p.broken != "" {
			t.Errorf("seed %d: %s: %s", seed, p.now, p.broken)
			if bad++; bad >= 10 {
				break
			}
		}
	}
	t.Logf("%d acknowledged writes; %v", done, counts)
	for _, code := range []string{"mirror-disk-copy", "mirror-disk-in-sync", "mirror-disk-lost", "mirror-disk-verified"} {
		if counts[code] == 0 {
			t.Errorf("no story had %s", code)
		}
	}
}

var _ = meta.MinShift
