package api

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Mirror is one mirror disk with its copies.
type Mirror struct {
	Name    cluster.ResourceName `json:"name"`
	Group   cluster.GroupName    `json:"group"`
	Comment string               `json:"comment,omitempty"`
	Mode    string               `json:"mode"`            // sync or async
	Mount   string               `json:"mount,omitempty"` // the mount point, where it has a file system
	Owner   cluster.NodeName     `json:"owner,omitempty"` // of the group
	InSync  []cluster.NodeName   `json:"in_sync"`         // whose copy is complete, by agreement; empty: it was never constructed
	Since   time.Time            `json:"since,omitzero"`  // of InSync
	Why     string               `json:"why,omitempty"`   // of InSync
	Forced  *MirrorForced        `json:"forced,omitempty"`
	Paused  *MirrorPaused        `json:"paused,omitempty"`
	Victim  cluster.NodeName     `json:"victim,omitempty"` // what only its copy holds may be overwritten
	Copies  []MirrorCopy         `json:"copies"`           // in the order of the group's nodes
}

// MirrorForced says that a copy that may have been out of date was made the
// latest one. It stays until somebody acknowledges it.
type MirrorForced struct {
	Node   cluster.NodeName `json:"node"`
	Why    string           `json:"why"`
	Author string           `json:"author"`
	Since  time.Time        `json:"since"`
}

// MirrorPaused says that the mirror is broken: nothing is copied.
type MirrorPaused struct {
	Why    string    `json:"why"`
	Author string    `json:"author"`
	Since  time.Time `json:"since"`
}

// MirrorCopy is the copy on one node.
type MirrorCopy struct {
	Node       cluster.NodeName `json:"node"`
	Role       string           `json:"role,omitempty"`       // MirrorActive, MirrorStandby, or "" where no process serves it
	State      string           `json:"state"`                // MirrorInSync and so on
	Text       string           `json:"text,omitempty"`       // what is wrong, or being done; lower case
	Connected  bool             `json:"connected"`            // to the other copy
	Blank      bool             `json:"blank,omitempty"`      // it was never made: there is nothing on it
	DiskError  bool             `json:"disk_error,omitempty"` // its disk had an error, and has not proven itself since
	Percent    float64          `json:"percent,omitempty"`
	Rate       int64            `json:"rate,omitempty"` // of copying, in bytes per second
	ETA        time.Duration    `json:"eta,omitempty" doc:"until the copy is complete, in nanoseconds"`
	Dirty      int64            `json:"dirty,omitempty"`  // how much differs, in bytes
	Size       int64            `json:"size,omitempty"`   // of the block device, in bytes
	Writes     int64            `json:"writes,omitempty"` // what is written on the block device, in bytes per second
	Device     string           `json:"device,omitempty"` // the block device, on the active node
	Generation string           `json:"generation,omitempty"`
	Began      time.Time        `json:"began,omitzero"`   // when that generation of the data did: the copy went on alone then, or was made
	Written    time.Time        `json:"written,omitzero"` // when this copy last wrote as the active one, about
	Since      time.Time        `json:"since,omitzero"`   // of State
}

// Roles of a copy.
const (
	MirrorActive  = "active"
	MirrorStandby = "standby"
)

// States of a copy.
const (
	MirrorInSync   = "in_sync"
	MirrorCopying  = "copying"  // it is being copied to
	MirrorOutdated = "outdated" // the other one has writes that it does not have
	MirrorSplit    = "split"    // each has writes that the other does not have
	MirrorFailed   = "failed"   // its disk has failed
	MirrorUnknown  = "unknown"
)

// Color is the state in the colors that administrators of mirror disks know.
func (c MirrorCopy) Color() string {
	switch c.State {
	case MirrorInSync:
		return "GREEN"
	case MirrorCopying:
		return "YELLOW"
	case MirrorOutdated, MirrorSplit, MirrorFailed:
		return "RED"
	}
	return "GRAY"
}

// MirrorOp asks for something to be done with a mirror disk.
type MirrorOp struct {
	ID       cluster.RequestID `json:"id,omitempty"`       // the same id sent twice acts once; "" is a new one
	Node     cluster.NodeName  `json:"node,omitempty"`     // force, resolve, invalidate, look, keep: whose copy
	Reason   string            `json:"reason,omitempty"`   // for the log; force and resolve need one
	Confirm  string            `json:"confirm,omitempty"`  // force, resolve: the name of the cluster, typed by a person
	Thorough bool              `json:"thorough,omitempty"` // copy: everything; verify: copy what differs
	Cause    cluster.EventID   `json:"cause,omitempty"`

	NoSnapshot bool `json:"no_snapshot,omitempty"` // resolve: what is given up is not kept before
}
