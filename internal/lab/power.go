package lab

import (
	"encoding/json"
	"net"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab/machine"
)

// powerWithin bounds one connection to the power switches: a boot takes the
// longest.
const powerWithin = 2 * bootWithin

// maxPowerAskers bounds the connections of one host that are served at a time.
const maxPowerAskers = 8

// switches gives every host with guests the power switches of these guests, and
// of nothing else. They are there as long as the lab.
func (s *supervisor) switches() error {
	for _, h := range s.all {
		if len(s.guests(h)) == 0 {
			continue
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.dir.power(h.spec.Name), Net: "unix"})
		if err != nil {
			return err
		}
		go func() { <-s.life.Done(); l.Close() }()
		go s.serveSwitches(h, l)
	}
	return nil
}

func (s *supervisor) serveSwitches(h *unit, l *net.UnixListener) {
	slots := make(chan struct{}, maxPowerAskers)
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if s.life.Err() == nil {
				s.log.Error("the power switches of a host fail", "host", h.spec.Name, "error", err)
			}
			return
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(powerWithin))
			var q machine.PowerAsk
			if json.NewDecoder(conn).Decode(&q) != nil {
				return
			}
			var a machine.PowerAnswer
			if a.Power, err = s.doPower(h, q); err != nil {
				a.Error = asError(err)
			}
			json.NewEncoder(conn).Encode(a)
		}()
	}
}

// doPower does what a host asks for one of its guests.
func (s *supervisor) doPower(h *unit, q machine.PowerAsk) (cluster.Power, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return "", refuse("", "the lab goes down")
	}
	m, err := s.find(q.Machine)
	if err != nil {
		return "", err
	}
	if s.host(m) != h {
		return "", refuse("see tasuki lab status", "%s is no guest of %s", q.Machine, h.spec.Name)
	}
	switch q.Action {
	case cluster.PowerStatus:
	case cluster.PowerOff:
		m.follows = false // also if it is off in the middle of a reboot
		if m.pid != 0 {
			err = s.endWithGuests(m, "its host took the power from it")
		}
	case cluster.PowerOn:
		if m.state == Off {
			err = s.bootWithGuests(m)
		}
	default:
		return "", refuse("off, on, status", "a guest's power has no %.32q", q.Action)
	}
	// A process that is stuck keeps its number; one that reboots comes back.
	if m.pid != 0 || m.follows {
		return cluster.On, err
	}
	return cluster.Off, err
}
