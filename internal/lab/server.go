package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/tasuki-ha/tasuki/api"
)

// ask is one operation; answer is what became of it. A connection carries one
// of each.
type ask struct {
	Op      string `json:"op"` // status, boot, kill, pause, resume, pull, plug, cut, heal, down
	Machine string `json:"machine,omitempty"`
	NIC     string `json:"nic,omitempty"`
	Cut     *Cut   `json:"cut,omitempty"`
}

type answer struct {
	Error  *api.Error `json:"error,omitempty"`
	Status *Status    `json:"status,omitempty"`
}

// Status is the whole lab.
type Status struct {
	Name       string        `json:"name"`
	Layout     string        `json:"layout"`
	Dir        string        `json:"dir"`
	Supervisor int           `json:"supervisor"` // process id
	Since      time.Time     `json:"since"`
	Machines   []MachineInfo `json:"machines"`
	Cuts       []Cut         `json:"cuts,omitempty"`
}

// MachineInfo is one machine of a lab.
type MachineInfo struct {
	Name    string     `json:"name"`
	Kind    Kind       `json:"kind"`
	Host    string     `json:"host,omitempty"`
	State   State      `json:"state"`
	Why     string     `json:"why"`
	Since   time.Time  `json:"since"`
	Boots   int        `json:"boots"`
	PID     int        `json:"pid,omitempty"`    // of its first process, as seen from outside
	NetNS   string     `json:"netns,omitempty"`  // a path that setns(2) takes
	Root    string     `json:"root,omitempty"`   // its file system, as seen from outside
	Logs    string     `json:"logs"`             // its /var/log, as seen from outside; there when it is off too
	Cgroup  string     `json:"cgroup,omitempty"` // of all its processes
	Control string     `json:"control"`
	NICs    []NICInfo  `json:"nics"`
	Disks   []DiskInfo `json:"disks,omitempty"`
}

// DiskInfo is one disk of a machine.
type DiskInfo struct {
	Name   string `json:"name"`             // below /dev of the machine
	Device string `json:"device,omitempty"` // its name outside, while the machine is on
	File   string `json:"file"`             // what it is made of. Read it while the machine is off
}

// NICInfo is one interface.
type NICInfo struct {
	Name      string   `json:"name"`
	To        string   `json:"to"` // the switch or vswitch at the other end
	Addresses []string `json:"addresses"`
	Plugged   bool     `json:"plugged"`
}

// maxAskers bounds the operations that wait.
const maxAskers = 64

// serve answers until the lab's life ends.
func (s *supervisor) serve(l *net.UnixListener) {
	stop := context.AfterFunc(s.life, func() { l.Close() })
	defer stop()
	slots := make(chan struct{}, maxAskers)
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if s.life.Err() == nil {
				s.log.Error("the lab's socket fails", "error", err)
			}
			s.stop()
			return
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(2 * bootWithin))
			var q ask
			if err := json.NewDecoder(conn).Decode(&q); err != nil {
				return
			}
			a := answer{}
			var err error
			if a.Status, err = s.do(q); err != nil {
				a.Error = asError(err)
			}
			json.NewEncoder(conn).Encode(a)
			if q.Op == "down" {
				s.stop()
			}
		}()
	}
}

// do carries out one operation.
func (s *supervisor) do(q ask) (*Status, error) {
	if q.Op == "down" {
		return nil, nil // serve does it, and does not wait for what is under way
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return nil, errors.New("the lab goes down")
	}
	switch q.Op {
	case "status":
		return s.status(), nil
	case "cut", "heal":
		if q.Cut == nil {
			return nil, fmt.Errorf("%s needs two machines", q.Op)
		}
		if q.Op == "cut" {
			return nil, s.doCut(*q.Cut)
		}
		return nil, s.doHeal(q.Cut.A, q.Cut.B)
	}
	m, err := s.find(q.Machine)
	if err != nil {
		return nil, err
	}
	switch q.Op {
	case "boot":
		return nil, s.doBoot(m)
	case "kill":
		return nil, s.doKill(m)
	case "pause", "resume":
		return nil, s.doPause(s.life, m, q.Op == "pause")
	case "pull", "plug":
		return nil, s.doPull(m, q.NIC, q.Op == "pull")
	}
	return nil, fmt.Errorf("a lab does not know %q", q.Op)
}

func (s *supervisor) status() *Status {
	st := &Status{
		Name: s.dir.name(), Layout: s.plan.Layout.Name, Dir: string(s.dir), Supervisor: os.Getpid(),
		Since: s.started, Cuts: s.cuts,
	}
	for _, m := range s.all {
		i := MachineInfo{
			Name: m.spec.Name, Kind: m.kind, Host: m.spec.Host, State: m.state, Why: m.why, Since: m.since,
			Boots: m.boots, PID: m.pid, Control: s.dir.control(m.spec.Name),
		}
		i.Logs = fmt.Sprintf("/proc/%d/root%s/%s/upper/var/log", os.Getpid(), s.dir.disks(), m.spec.Name)
		if m.pid != 0 {
			i.NetNS = fmt.Sprintf("/proc/%d/ns/net", m.pid)
			i.Root = fmt.Sprintf("/proc/%d/root", m.pid)
		}
		if s.group != "" {
			i.Cgroup = string(s.group.child(m.spec.Name))
		}
		for _, n := range m.spec.NICs {
			to := n.VSwitch
			if m.kind != KindGuest {
				to = n.Switch
			}
			i.NICs = append(i.NICs, NICInfo{Name: n.Name, To: to, Addresses: addrStrings(n.Addresses), Plugged: !m.pulled[n.Name]})
		}
		for j, k := range m.spec.Disks {
			d := DiskInfo{Name: k.Name, File: s.dir.block(m.spec.Name, k.Name)}
			if len(m.blocks) > j {
				d.Device = m.blocks[j].device.Name()
			}
			i.Disks = append(i.Disks, d)
		}
		st.Machines = append(st.Machines, i)
	}
	return st
}
