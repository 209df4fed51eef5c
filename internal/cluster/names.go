package cluster

import (
	"fmt"
	"regexp"
)

// Names are 1 to 64 bytes, start with a letter or digit, and go on with
// letters, digits, dots, hyphens and underscores. They are unique within their
// kind in one cluster.
type (
	// Name is the name of a cluster.
	Name string
	// NodeName is the name of a node; the same word in every message and file.
	NodeName string
	// GroupName is the name of a group, the unit that fails over as one.
	GroupName string
	// ResourceName is the name of a resource, unique in the whole cluster
	// because a request may name a group by one of its resources.
	ResourceName string
	// MonitorName is the name of a monitor.
	MonitorName string
	// LinkName is the name of another cluster that this one asks or is asked by.
	LinkName string
	// GuestName is the name of a virtual machine on a host that is a cluster.
	GuestName string
	// UserName is the name of a user, who signs in with a password.
	UserName string
)

// RequestID names one request. The same id sent twice acts once.
type RequestID string

// EventID names one line of the operator's log: NODE/SEQUENCE, for example
// "CLP-1/42". It is empty where an event has no cause.
type EventID string

// Epoch counts the assignments of a group. An action that carries an older
// epoch than the group's current one is void.
type Epoch uint64

// Generation counts how often consensus was restarted by a node that went on
// alone (the solo term). Higher wins.
type Generation uint64

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckName says whether s can be a name of any kind.
func CheckName(s string) error {
	if !nameRE.MatchString(s) {
		return fmt.Errorf("%q is not a name: use 1 to 64 letters, digits, '.', '-' or '_', the first a letter or digit", s)
	}
	return nil
}
