package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tasuki-ha/tasuki/internal/lab"
)

const (
	every     = 10 * time.Millisecond  // between two looks, and two requests
	asksFor   = 250 * time.Millisecond // the limit of one request
	outageMin = 100 * time.Millisecond // shorter ones are not counted
	lateAfter = 50 * time.Millisecond  // a look that comes later is counted
	maxSpells = 10000                  // of one view
	maxLines  = 200000                 // of the timeline
)

// spell is a time in which more than one node was an owner.
type spell struct {
	From, To time.Time
	Nodes    uint // a bit for each member
	Paused   bool // within a second after one of them was let go on after a pause
}

func (s spell) length() time.Duration { return s.To.Sub(s.From) }

// overlap is a view that is looked at: a bit for each node that is an owner.
type overlap struct {
	now    uint
	double *spell
	spells []spell
}

func (o *overlap) set(mask uint, at time.Time) {
	o.now = mask
	many := mask&(mask-1) != 0
	switch {
	case many && o.double == nil:
		o.double = &spell{From: at, To: at, Nodes: mask}
	case many:
		o.double.To, o.double.Nodes = at, o.double.Nodes|mask
	case o.double != nil:
		o.double.To = at
		if len(o.spells) < maxSpells {
			o.spells = append(o.spells, *o.double)
		}
		o.double = nil
	}
}

// flips is a view by answers: two nodes own what is asked for if one answers,
// then the other, then the first again, all within a time in which no failover
// and back is possible.
type flips struct {
	within time.Duration
	last   []time.Time
	run    int // who answered last
	spells []spell
}

func (f *flips) saw(node int, at time.Time) {
	before := f.last[node]
	if f.run != node && f.run >= 0 && at.Sub(before) < f.within {
		s := spell{From: before, To: at, Nodes: 1<<node | 1<<f.run}
		if n := len(f.spells); n > 0 && s.From.Sub(f.spells[n-1].To) < f.within {
			f.spells[n-1].To = at
			f.spells[n-1].Nodes |= s.Nodes
		} else if n < maxSpells {
			f.spells = append(f.spells, s)
		}
	}
	f.last[node], f.run = at, node
}

// answer is one request to the floating address.
type answer struct {
	sent, done time.Time
	node       int // -1: nobody
}

// door is the way into the network of a machine, as of one boot.
type door struct {
	boots int
	nl    *netlink.Handle
}

// observer watches from outside. Everything below mu is read with look.
type observer struct {
	c      *chaos
	lockID []string // device and inode of each member's lock file, as /proc/locks has it
	stop   func()

	mu      sync.Mutex
	doors   []door
	macs    map[string]int // by hardware address on the public network
	paused  uint
	resumed []time.Time
	address overlap
	lock    overlap
	wire    flips
	answers []answer // in the order of sending, once done
	lines   []string
	looks   int
	late    int
	longest time.Duration
	broken  error
}

func observe(ctx context.Context, c *chaos) (*observer, error) {
	n := len(c.members)
	o := &observer{
		c: c, doors: make([]door, n), macs: map[string]int{}, resumed: make([]time.Time, n),
		wire: flips{within: 50 * time.Millisecond, last: make([]time.Time, n), run: -1},
	}
	for _, m := range c.members {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(c.locks, m), &st); err != nil {
			return nil, err
		}
		o.lockID = append(o.lockID, fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino))
	}
	client, err := c.Lab.Namespace(ctx, c.Client)
	if err != nil {
		return nil, err
	}
	ear, err := listen(client, c.floating())
	if err != nil {
		return nil, err
	}
	if err := o.enter(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	all.Go(func() { o.keepDoors(ctx) })
	all.Go(func() { o.look(ctx) })
	all.Go(func() { o.ask(ctx, client) })
	all.Go(func() { ear.shout(ctx) })
	all.Go(func() { ear.hear(o.heard) })
	o.stop = sync.OnceFunc(func() {
		cancel()
		ear.close()
		all.Wait()
		client.Close()
	})
	return o, nil
}

// note writes a line of the timeline. The caller holds mu.
func (o *observer) note(at time.Time, format string, args ...any) {
	if len(o.lines) < maxLines {
		o.lines = append(o.lines, at.Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

func (o *observer) names(mask uint) string {
	var out []string
	for i, m := range o.c.members {
		if mask&(1<<i) != 0 {
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return "nobody"
	}
	return strings.Join(out, "+")
}

// keepDoors follows the machines over their boots.
func (o *observer) keepDoors(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := o.enter(ctx); err != nil && ctx.Err() == nil {
			o.mu.Lock()
			o.broken = err
			o.mu.Unlock()
		}
	}
}

// enter opens the doors of machines that have booted since.
func (o *observer) enter(ctx context.Context) error {
	st, err := o.c.Lab.Status(ctx)
	if err != nil {
		return err
	}
	for i, m := range o.c.members {
		at := slices.IndexFunc(st.Machines, func(x lab.MachineInfo) bool { return x.Name == m })
		info := st.Machines[at]
		o.mu.Lock()
		old := o.doors[i]
		o.mu.Unlock()
		if info.State == lab.Off || info.Boots == old.boots && old.nl != nil {
			continue
		}
		d, mac := door{boots: info.Boots}, ""
		err := o.c.Lab.Do(ctx, m, func() (err error) {
			if d.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
				return err
			}
			link, err := d.nl.LinkByName("eth0")
			if err == nil {
				mac = link.Attrs().HardwareAddr.String()
			}
			return err
		})
		if err != nil {
			continue // it went off again
		}
		o.mu.Lock()
		o.doors[i], o.macs[mac] = d, i
		o.note(time.Now(), "%s runs (boot %d)", m, info.Boots)
		o.mu.Unlock()
		if old.nl != nil {
			old.nl.Close()
		}
	}
	return nil
}

// pause says that a machine stands still, or goes on. What a machine has that
// stands still is of no use to anybody.
func (o *observer) pause(member int, still bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !still && o.paused&(1<<member) != 0 {
		o.resumed[member] = time.Now()
	}
	o.paused &^= 1 << member
	if still {
		o.paused |= 1 << member
	}
}

// look looks at the machines' addresses and locks.
func (o *observer) look(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		o.mu.Lock()
		now := time.Now()
		o.looks++
		o.longest = max(o.longest, now.Sub(last))
		if now.Sub(last) > lateAfter {
			o.late++
			o.note(now, "the observer itself was late: %v", now.Sub(last))
		}
		last = now
		o.settle("address", &o.address, o.holders()&^o.paused, now)
		if held, err := o.locked(); err != nil {
			o.broken = err
		} else {
			o.settle("lock", &o.lock, held&^o.paused, now)
		}
		o.mu.Unlock()
	}
}

// settle takes one look at a view over. The caller holds mu.
func (o *observer) settle(what string, v *overlap, mask uint, now time.Time) {
	if mask != v.now {
		o.note(now, "%s: %s", what, o.names(mask))
	}
	v.set(mask, now)
	if v.double != nil && o.wasPaused(v.double.Nodes, v.double.From) {
		v.double.Paused = true
	}
}

// wasPaused says whether one of these nodes was let go on within the second
// before. The caller holds mu.
func (o *observer) wasPaused(mask uint, at time.Time) bool {
	for i, r := range o.resumed {
		if since := at.Sub(r); mask&(1<<i) != 0 && since >= -every && since < time.Second {
			return true
		}
	}
	return false
}

// holders returns which nodes have the address. Machines are asked one after the
// other, so if there is more than one they are asked again: who still has it had
// it while the others had it. The caller holds mu.
func (o *observer) holders() uint {
	mask := o.hold(^uint(0))
	if mask&(mask-1) != 0 {
		mask = o.hold(mask)
	}
	return mask
}

// hold returns which of these nodes' kernels have the address. The caller holds
// mu. A machine without power has none, since its links are gone.
func (o *observer) hold(of uint) (mask uint) {
	for i, d := range o.doors {
		if of&(1<<i) == 0 {
			continue
		}
		list, err := d.nl.AddrList(nil, unix.AF_INET)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			o.broken = fmt.Errorf("look at %s: %w", o.c.members[i], err)
		}
		floating := net.IP(o.c.floating().AsSlice())
		if slices.ContainsFunc(list, func(a netlink.Addr) bool { return a.IP.Equal(floating) }) {
			mask |= 1 << i
		}
	}
	return mask
}

// locked returns whose lock files are locked by somebody who can do something.
func (o *observer) locked() (mask uint, err error) {
	data, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line) // 1: FLOCK ADVISORY WRITE PID DEVICE:INODE 0 EOF
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" {
			continue
		}
		if i := slices.Index(o.lockID, f[5]); i >= 0 && strings.HasPrefix(comm(f[4]), "sleep") && !inert(f[4]) {
			mask |= 1 << i
		}
	}
	return mask, nil
}

// comm is the name of a process: the scripts' own short looks at the lock do
// not count.
func comm(pid string) string {
	if _, err := strconv.Atoi(pid); err != nil {
		return ""
	}
	data, _ := os.ReadFile("/proc/" + pid + "/comm")
	return string(data)
}

// ask asks the service as a client does: each request on its own connection.
func (o *observer) ask(ctx context.Context, from *lab.Namespace) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	under := make(chan struct{}, 64)
	var all sync.WaitGroup
	defer all.Wait()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		select {
		case under <- struct{}{}:
		default:
			continue
		}
		all.Go(func() {
			a := answer{sent: time.Now()}
			a.node = o.request(from)
			a.done = time.Now()
			o.mu.Lock()
			o.answers = append(o.answers, a)
			o.mu.Unlock()
			<-under
		})
	}
}

// request returns which member answered, or -1.
func (o *observer) request(from *lab.Namespace) int {
	ctx, cancel := context.WithTimeout(context.Background(), asksFor)
	defer cancel()
	conn, err := from.DialContext(ctx, "tcp", o.c.floating().String()+":80")
	if err != nil {
		return -1
	}
	defer conn.Close()
	at, _ := ctx.Deadline()
	conn.SetDeadline(at)
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return -1
	}
	data, err := io.ReadAll(io.LimitReader(conn, 4096))
	head, body, _ := strings.Cut(string(data), "\r\n\r\n")
	if err != nil || !strings.Contains(head, " 200 ") {
		return -1
	}
	return slices.Index(o.c.members, strings.TrimSpace(body))
}

// heard takes over that a node claimed the address on the wire.
func (o *observer) heard(mac string, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i, known := o.macs[mac]
	if !known {
		return
	}
	if o.wire.run != i {
		o.note(at, "wire: %s", o.c.members[i])
	}
	o.wire.saw(i, at)
	if n := len(o.wire.spells); n > 0 && o.wire.spells[n-1].To.Equal(at) && o.wasPaused(o.wire.spells[n-1].Nodes, at) {
		o.wire.spells[n-1].Paused = true
	}
}

// sorted returns the answers to requests that were sent from then on.
func (o *observer) sorted(from time.Time) []answer {
	o.mu.Lock()
	at := len(o.answers)
	for at > 0 && o.answers[at-1].done.After(from) {
		at--
	}
	out := slices.Clone(o.answers[at:])
	o.mu.Unlock()
	out = slices.DeleteFunc(out, func(a answer) bool { return a.sent.Before(from) })
	slices.SortStableFunc(out, func(a, b answer) int { return a.sent.Compare(b.sent) })
	return out
}

// owner returns the member that owns the service, as well as it can be seen.
func (o *observer) owner() int {
	for _, a := range slices.Backward(o.sorted(time.Now().Add(-2 * asksFor))) {
		if a.node >= 0 {
			return a.node
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.c.members {
		if o.address.now&(1<<i) != 0 {
			return i
		}
	}
	return 0
}

// awaitService returns when 20 requests in a row were answered by one node, and
// since when that is so.
func (o *observer) awaitService(ctx context.Context, since time.Time) (time.Time, error) {
	tick := time.NewTicker(5 * every)
	defer tick.Stop()
	for {
		list := o.sorted(since)
		for i, run := 0, 0; i < len(list); i++ {
			switch {
			case list[i].node < 0:
				run = 0
			case run > 0 && list[i].node == list[i-1].node:
				run++
			default:
				run = 1
			}
			if run == 20 {
				return list[i-19].sent, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}

// inert says whether a process can do nothing of its own: it stands still after
// SIGSTOP, or was killed and is on its way out. See proc_pid_stat(5), flags as in
// linux/sched.h, and the masks of pending signals of proc_pid_status(5).
func inert(pid string) bool {
	const exiting = 0x4 // PF_EXITING
	stat, _ := os.ReadFile("/proc/" + pid + "/stat")
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])) // state, ppid, pgrp, session, tty, tpgid, flags
	if len(f) < 7 {
		return true // it is gone
	}
	flags, _ := strconv.ParseUint(f[6], 10, 64)
	return f[0] == "T" || flags&exiting != 0 || killed(pid)
}

// killed says whether SIGKILL waits for a process.
func killed(pid string) bool {
	status, _ := os.ReadFile("/proc/" + pid + "/status")
	for line := range strings.Lines(string(status)) {
		mask, ok := strings.CutPrefix(line, "SigPnd:")
		if !ok {
			mask, ok = strings.CutPrefix(line, "ShdPnd:")
		}
		bits, _ := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		if ok && bits&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}
