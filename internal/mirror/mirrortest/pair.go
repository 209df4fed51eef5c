// Package mirrortest is a world in which the core of a mirror disk can be tried:
// two hosts with modelled data and meta devices, the link between them, and
// clients that know what they were promised. Time, chance and the cluster come
// from the World that a Pair is put into: that of the stories of package replica,
// or the simulator of whole clusters.
//
// What it looks for: no acknowledged write is lost while a copy survives that
// counted when it was acknowledged, no copy becomes active that lacks what was
// promised, a write of an older assignment is never carried out, and every
// request is answered in the end.
package mirrortest

import (
	"math/rand/v2"
	"time"

	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
)

// Cell is what the models count data in: bytes that a disk writes as a whole.
const Cell = 4096

// World is where two hosts live. Its methods are called from one goroutine.
type World interface {
	Now() time.Duration
	// After calls do when d has passed, later than everything of the same time.
	After(d time.Duration, do func())
	// Linked says whether a stream between the hosts works.
	Linked() bool
	Say(format string, args ...any)    // for who replays a story
	Breaks(format string, args ...any) // a rule was broken

	// Asked is called when the core of a host asks for a set. Host.Wish is what it
	// asks for now; the world answers with Host.Told when that has changed.
	Asked(h *Host)
	// Became is called when the role of a host has changed.
	Became(h *Host, r replica.Role)
	// Failed is called when a copy cannot go on as the active one.
	Failed(h *Host, why string)
	// Counts says whether the copy of the other host is in the set that the cluster
	// last told h of.
	Counts(h *Host) bool
	// Set is the set that a process of h that starts now is told; ok is false where
	// nobody can tell it yet.
	Set(h *Host) (set replica.Set, ok bool)
}

// Config is how a Pair is made.
type Config struct {
	Extents int   // of 4 MiB, that the device has
	Shift   uint8 // of the blocks of the bitmap
	Async   bool
	NoCopy  bool // the first copy is left out: both are taken to be equal
	Policy  replica.Policy
	Rate    int64

	Tick time.Duration // between two calls of Core.Tick
	Dial time.Duration // between two attempts to connect
	Gap  time.Duration // between two requests of a client, at most

	// Capacity and Sector of the two data devices; 0: what fits.
	Capacity [2]int64
	Sector   [2]uint16
}

// Pair is two copies of a mirror disk. Create it with New.
type Pair struct {
	Config
	Hosts   [2]*Host
	Notices map[string]int // of notices, by code
	Acked   int            // writes that were acknowledged
	Chance  *rand.Rand

	world    World
	size     int64
	links    uint64
	slots    []*slot
	seq      int // of everything that is submitted or completed
	writes   []*written
	barriers [][2]int // of each flush that was answered: when it was submitted, and when it was complete
}

// New returns two hosts whose processes do not run yet, and whose devices are
// blank.
func New(w World, chance *rand.Rand, c Config) *Pair {
	p := &Pair{Config: c, Notices: map[string]int{}, Chance: chance, world: w, size: int64(c.Extents) * meta.ExtentSize, writes: []*written{{}}}
	for i := range p.Hosts {
		p.Hosts[i] = &Host{N: i, p: p, disk: newDisk(p.size / Cell), meta: metaDisk{pages: map[int][]byte{}}}
		p.Hosts[i].Client = &Client{p: p, h: p.Hosts[i], under: map[*replica.IO]bool{}, flush: map[*replica.IO]int{}}
	}
	p.makeSlots()
	return p
}

// Between returns a time at random.
func (p *Pair) Between(from, to time.Duration) time.Duration {
	return from + time.Duration(p.Chance.Int64N(int64(to-from)+1))
}

// ms is Between in milliseconds.
func (p *Pair) ms(from, to int) time.Duration {
	return p.Between(time.Duration(from)*time.Millisecond, time.Duration(to)*time.Millisecond)
}

// Differs returns the first cell in which the two disks differ, or -1.
func (p *Pair) Differs() int64 {
	for b := range p.Hosts[0].disk.now {
		if p.Hosts[0].disk.now[b].v != p.Hosts[1].disk.now[b].v {
			return int64(b)
		}
	}
	return -1
}
