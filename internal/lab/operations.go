package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
)

// refuse is an error that changed nothing.
func refuse(hint, format string, args ...any) error {
	return &api.Error{Code: "refused", Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Operations, as the socket asks for them. All hold s.mu.

func (s *supervisor) doKill(m *unit) error {
	if m.state == Off {
		return refuse("tasuki lab boot "+m.spec.Name, "%s is off already: %s", m.spec.Name, m.why)
	}
	m.follows = false
	return s.endWithGuests(m, "killed")
}

func (s *supervisor) doBoot(m *unit) error {
	if m.state != Off {
		return refuse("tasuki lab kill "+m.spec.Name, "%s runs already", m.spec.Name)
	}
	return s.bootWithGuests(m)
}

func (s *supervisor) doPull(m *unit, nic string, pulled bool) error {
	for i, n := range m.spec.NICs {
		if n.Name != nic {
			continue
		}
		if m.pulled[nic] == pulled {
			return refuse("see tasuki lab status", "%s of %s is %s already", nic, m.spec.Name, map[bool]string{true: "pulled", false: "plugged in"}[pulled])
		}
		if m.net != nil {
			where, port, _ := s.port(m, i)
			if err := where.set(port, !pulled); err != nil {
				return err
			}
		}
		m.pulled[nic] = pulled
		return nil
	}
	return refuse("it has "+nicNames(m.spec), "%s has no nic %q", m.spec.Name, nic)
}

func (s *supervisor) doPause(ctx context.Context, m *unit, pause bool) error {
	want, become := Up, Paused
	if !pause {
		want, become = Paused, Up
	}
	if m.state != want {
		return refuse("see tasuki lab status", "%s is %s, not %s", m.spec.Name, m.state, want)
	}
	if err := s.freeze(ctx, m, pause); err != nil {
		return fmt.Errorf("pause or resume %s: %w", m.spec.Name, err)
	}
	m.state, m.why, m.since = become, map[bool]string{true: "paused", false: "resumed"}[pause], time.Now()
	return s.filter(m)
}

func (s *supervisor) doCut(c Cut) error {
	a, err := s.find(c.A)
	if err != nil {
		return err
	}
	b, err := s.find(c.B)
	if err != nil {
		return err
	}
	if a == b {
		return refuse("name two machines", "%s cannot be cut from itself", c.A)
	}
	touches := false
	for _, x := range s.sights(c.A) {
		for _, y := range s.sights(c.B) {
			touches = touches || x.in(c.Network) && y.in(c.Network)
		}
	}
	if !touches {
		where := "no network"
		if c.Network.IsValid() {
			where = "not both an address in " + c.Network.String()
		}
		return refuse("see tasuki lab status for their addresses", "%s and %s have %s", c.A, c.B, where)
	}
	for _, o := range s.cuts {
		if o == c {
			return refuse("tasuki lab heal "+c.A+" "+c.B, "%s and %s are cut like this already", c.A, c.B)
		}
	}
	if len(s.cuts) >= maxCuts {
		return refuse("tasuki lab heal", "there are %d cuts already", len(s.cuts))
	}
	s.cuts = append(s.cuts, c)
	return s.filterAll()
}

const maxCuts = 1024

// doHeal removes the cuts between two machines, or all of them.
func (s *supervisor) doHeal(a, b string) error {
	var left []Cut
	for _, c := range s.cuts {
		if a != "" && !c.between(a, b) {
			left = append(left, c)
		}
	}
	if a != "" {
		if _, err := s.find(a); err != nil {
			return err
		}
		if _, err := s.find(b); err != nil {
			return err
		}
		if len(left) == len(s.cuts) {
			return refuse("see tasuki lab status", "%s and %s are not cut", a, b)
		}
	}
	s.cuts = left
	return s.filterAll()
}

func (s *supervisor) filterAll() error {
	var errs []error
	for _, m := range s.all {
		if m.net != nil {
			errs = append(errs, s.filter(m))
		}
	}
	return errors.Join(errs...)
}

func nicNames(m Machine) string {
	var names []string
	for _, n := range m.NICs {
		names = append(names, n.Name)
	}
	return strings.Join(names, ", ")
}

func addrStrings(list []netip.Addr) []string {
	out := make([]string, 0, len(list))
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}
