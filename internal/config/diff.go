package config

import (
	"fmt"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Change is one difference between two cluster files.
type Change struct {
	Path   string `json:"path"`          // as in the file: groups.web.resources.web-ip.address
	Old    string `json:"old,omitempty"` // "" where it is new
	New    string `json:"new,omitempty"` // "" where it is gone
	Effect Effect `json:"effect"`
}

// String returns one line for people.
func (c Change) String() string {
	show := func(s string) string {
		if s == "" {
			return "nothing"
		}
		return s
	}
	return fmt.Sprintf("%s: %s -> %s (%s)", c.Path, show(c.Old), show(c.New), c.Effect.Text)
}

// Effect is what a change does to what is running.
type Effect struct {
	Kind    EffectKind          `json:"kind"`
	Group   cluster.GroupName   `json:"group,omitempty"`   // whose run it touches
	Monitor cluster.MonitorName `json:"monitor,omitempty"` // which begins anew
	Text    string              `json:"text"`              // the sentence for people
}

// EffectKind sorts effects by how much they disturb.
type EffectKind string

// The kinds of effects, from the least to the worst. RestartResource and
// StopGroup are refused while the group they touch is active: what runs must be
// stopped with the settings it was started with.
const (
	EffectNone            EffectKind = "none"
	EffectRestartMonitor  EffectKind = "restart-monitor"
	EffectRestartResource EffectKind = "restart-resource"
	EffectStopGroup       EffectKind = "stop-group"
	EffectRefused         EffectKind = "refused"
)

// setting is one value of a file in words. An element is a named part of the
// file: a node, group, resource or monitor.
type setting struct {
	path    string
	parent  string // the path of the element that it is in; "" at the top
	value   string
	element bool // value only describes it
	effect  func(old, new string) Effect
}

// settings is a file taken apart, in file order.
type settings struct {
	list []setting
	at   map[string]int
}

func (s *settings) put(add setting) {
	if add.value == "" && !add.element {
		return
	}
	s.at[add.path] = len(s.list)
	s.list = append(s.list, add)
}

// alone says whether the setting is inside an element that the other file does
// not have: then that element is the change.
func (s *settings) alone(other *settings, path string) bool {
	for parent := s.list[s.at[path]].parent; parent != ""; parent = s.list[s.at[parent]].parent {
		if _, there := other.at[parent]; !there {
			return true
		}
	}
	return false
}

// Diff lists what differs between two files: first what is changed or gone, in
// the order of the old file, then what is new, in the order of the new one. A
// whole node, group, resource or monitor that is gone or new is one change.
func Diff(old, new *File) []Change {
	was, will := old.settings(), new.settings()
	var out []Change
	for _, s := range was.list {
		i, kept := will.at[s.path]
		switch {
		case was.alone(will, s.path):
		case !kept:
			out = append(out, Change{Path: s.path, Old: s.value, Effect: s.effect(s.value, "")})
		case !s.element && will.list[i].value != s.value:
			now := will.list[i].value
			out = append(out, Change{Path: s.path, Old: s.value, New: now, Effect: s.effect(s.value, now)})
		}
	}
	for _, s := range will.list {
		if _, had := was.at[s.path]; !had && !will.alone(was, s.path) {
			out = append(out, Change{Path: s.path, New: s.value, Effect: s.effect("", s.value)})
		}
	}
	return out
}
