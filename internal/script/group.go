package script

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// group is everything that one program started: its control group, or, where
// there are none, its session, its process group and all their descendants. A
// process that left all of these before anybody looked is out of reach then.
type group struct {
	pid    int // 0: no process of it is left
	cgroup string
}

// members remembers who was seen in a group without a control group: the start
// time by process id. A descendant stays known when its parent ends.
type members map[int]uint64

// signal sends s to everyone in the group.
func (g group) signal(seen *members, s unix.Signal) {
	for _, pid := range g.list(seen) {
		_ = unix.Kill(pid, s) // it may have ended
	}
}

// kill ends everyone in the group; with a control group all at once, so that
// nobody can fork away.
func (g group) kill(seen *members) {
	if g.cgroup != "" && os.WriteFile(g.cgroup+"/cgroup.kill", []byte("1"), 0) == nil {
		return
	}
	g.signal(seen, unix.SIGKILL)
}

func (g group) empty(seen *members) bool {
	if g.cgroup != "" {
		b, err := os.ReadFile(g.cgroup + "/cgroup.events")
		if err != nil {
			return os.IsNotExist(err)
		}
		return bytes.Contains(b, []byte("populated 0"))
	}
	return len(g.list(seen)) == 0
}

func (g group) list(seen *members) []int {
	if g.cgroup == "" {
		return g.sweep(seen)
	}
	b, _ := os.ReadFile(g.cgroup + "/cgroup.procs")
	var out []int
	for f := range bytes.FieldsSeq(b) {
		if pid, err := strconv.Atoi(string(f)); err == nil && pid > 0 {
			out = append(out, pid)
		}
	}
	return out
}

// sweep looks through all processes for those of the group.
func (g group) sweep(seen *members) []int {
	if g.pid == 0 {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []int{-g.pid} // the process group at least
	}
	all := map[int]stat{}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if s, ok := readStat(pid); ok {
				all[pid] = s
			}
		}
	}
	if *seen == nil {
		*seen = members{}
	}
	maps.DeleteFunc(*seen, func(pid int, start uint64) bool { return all[pid].start != start })
	for more := true; more; {
		more = false
		for pid, s := range all {
			_, known := (*seen)[pid]
			_, child := (*seen)[s.parent]
			if !known && (child || pid == g.pid || s.session == g.pid || s.group == g.pid) {
				(*seen)[pid], more = s.start, true
			}
		}
	}
	var out []int
	for pid := range *seen {
		if !all[pid].dead() {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

// stat is a part of /proc/PID/stat.
type stat struct {
	state                  byte
	parent, group, session int
	start                  uint64
}

func (s stat) dead() bool { return s.state == 'Z' || s.state == 'X' }

func readStat(pid int) (stat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	return parseStat(b)
}

// parseStat reads the fields after the name, which may hold anything, also
// blanks and parentheses; see proc_pid_stat(5).
func parseStat(b []byte) (s stat, ok bool) {
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return stat{}, false
	}
	number := func(i int) int {
		n, err := strconv.Atoi(string(f[i]))
		if err != nil {
			n = -1
		}
		return n
	}
	s = stat{state: f[0][0], parent: number(1), group: number(2), session: number(3)}
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	s.start = start
	return s, err == nil
}
