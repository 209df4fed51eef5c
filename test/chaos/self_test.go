package chaos_test

import (
	"context"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func at(ms int) time.Time { return time.UnixMilli(int64(ms)) }

func TestOverlap(t *testing.T) {
	var o overlap
	for _, x := range []struct {
		ms   int
		mask uint
	}{{0, 1}, {10, 0}, {20, 2}, {30, 3}, {40, 3}, {50, 2}, {60, 6}, {70, 7}, {80, 0}} {
		o.set(x.mask, at(x.ms))
	}
	want := []spell{{From: at(30), To: at(50), Nodes: 3}, {From: at(60), To: at(80), Nodes: 7}}
	if !slices.Equal(o.spells, want) {
		t.Errorf("got %v", o.spells)
	}
}

func TestFlips(t *testing.T) {
	f := flips{within: 50 * time.Millisecond, last: make([]time.Time, 2), run: -1}
	for i, node := range []int{0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0} { // there, and back after 80 ms
		f.saw(node, at(10*i))
	}
	if len(f.spells) != 0 {
		t.Errorf("a failover and back is taken for two owners: %v", f.spells)
	}
	for i, node := range []int{1, 0, 1, 1, 0} {
		f.saw(node, at(1000+10*i))
	}
	if want := []spell{{From: at(1000), To: at(1040), Nodes: 3}}; !slices.Equal(f.spells, want) {
		t.Errorf("got %v", f.spells)
	}
}

func TestOutages(t *testing.T) {
	var list []answer
	for i := range 100 {
		node := 0
		if i >= 20 && i < 25 || i >= 40 && i < 60 || i > 95 {
			node = -1
		}
		list = append(list, answer{sent: at(10 * i), node: node})
	}
	if got := outages(list); len(got) != 1 || got[0] != (outage{at(390), at(600)}) {
		t.Errorf("got %v", got)
	}
}

func TestRollsAreOfTheSeed(t *testing.T) {
	a, b := newRoller(sites["three"], 7, 30, ""), newRoller(sites["three"], 7, 30, "")
	seen := map[string]bool{}
	for range 1000 {
		x, y := a.round(), b.round()
		if !slices.Equal(x.faults, y.faults) || x.calm != y.calm {
			t.Fatalf("%v, then %v", x, y)
		}
		for _, f := range x.faults {
			seen[f.kind] = true
		}
	}
	if len(seen) != len(kinds) {
		t.Errorf("only these come: %v", seen)
	}
}

// A process counts until it can do nothing more, and not longer.
func TestInert(t *testing.T) {
	cmd := exec.Command("sleep", "infinity")
	must(t, cmd.Start())
	defer cmd.Process.Kill()
	pid := strconv.Itoa(cmd.Process.Pid)
	becomes := func(want bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for inert(pid) != want {
			if wait(ctx, time.Millisecond) != nil {
				t.Fatalf("inert is %v", !want)
			}
		}
	}
	if inert(pid) {
		t.Fatal("a process that sleeps is taken for one that can do nothing")
	}
	must(t, cmd.Process.Signal(unix.SIGSTOP))
	becomes(true)
	must(t, cmd.Process.Signal(unix.SIGCONT))
	becomes(false)
	must(t, cmd.Process.Signal(unix.SIGSTOP))
	becomes(true)
	must(t, cmd.Process.Kill())
	for range 1000 {
		if !inert(pid) {
			t.Fatal("a process that was killed while it stood still counts again")
		}
	}
}

// What the observer looks for is put before it.
func TestObserverSees(t *testing.T) {
	needsRoot(t)
	ctx := t.Context()
	c := build(t, sites["witness"])
	if _, err := c.seen.awaitService(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := c.seen.doubles(); len(got) > 0 {
		t.Errorf("two owners are seen where there is one: %v", got)
	}
	owner := c.seen.owner()
	other := c.members[(owner+1)%c.owners]
	must(t, c.Lab.Do(ctx, other, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: c.floating().AsSlice(), Mask: net.CIDRMask(24, 32)}})
	}))
	p, err := c.Lab.ExecStart(ctx, other, "flock", "-F", c.locks+"/"+other, "sleep", "infinity")
	must(t, err)
	must(t, wait(ctx, 300*time.Millisecond))
	must(t, p.Signal(unix.SIGKILL))
	seen := map[string]time.Duration{}
	for _, d := range c.seen.doubles() {
		seen[d.view] += d.length()
	}
	for _, view := range []string{"wire", "address", "lock"} {
		if seen[view] < 100*time.Millisecond {
			t.Errorf("the view %s has seen two owners for %v of 300 ms", view, seen[view])
		}
	}
	t.Log(seen)
}
