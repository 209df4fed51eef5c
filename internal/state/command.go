package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Entry is one entry of the replicated log: commands, which take effect at once
// and in order, each only if it still fits, and the answer to the ask that led
// to them, which is a refusal if one did not.
type Entry struct {
	Nonce    string    `json:"nonce,omitempty"` // by which the proposer knows it again; no part of the state
	Answer   *Answer   `json:"answer,omitempty"`
	Commands []Command `json:"commands,omitempty"`
}

// Command is one change of the state; exactly one field is set.
type Command struct {
	Config *SetConfig `json:"config,omitempty"`
	Node   *SetNode   `json:"node,omitempty"`
	Begin  *Begin     `json:"begin,omitempty"`
	Report *Report    `json:"report,omitempty"`
	Want   *Want      `json:"want,omitempty"`
	Clear  *Clear     `json:"clear,omitempty"`
	Forget *Forget    `json:"forget,omitempty"`
	Hold   *Hold      `json:"hold,omitempty"`

	Quarantine *SetQuarantine `json:"quarantine,omitempty"`
	Maintain   *Maintain      `json:"maintain,omitempty"`
	Suspend    *Suspend       `json:"suspend,omitempty"`
	Token      *SetToken      `json:"token,omitempty"`
	Link       *SetLink       `json:"link,omitempty"`
	User       *SetUser       `json:"user,omitempty"`
	Access     *SetAccess     `json:"access,omitempty"`

	Mirror        *SetMirror     `json:"mirror,omitempty"`
	OperateMirror *OperateMirror `json:"operate_mirror,omitempty"`
}

// SetConfig puts a new cluster file in force. Base is the version that it was
// written against; if another is in force, nothing happens.
type SetConfig struct {
	Base   uint64    `json:"base"`
	Text   string    `json:"text"`
	Author string    `json:"author"`
	Note   string    `json:"note,omitempty"`
	Time   time.Time `json:"time"`
}

// SetNode records where a node stands. A node that is down, left, or has booted
// anew owns no group any more.
type SetNode struct {
	Name    cluster.NodeName  `json:"name"`
	State   cluster.NodeState `json:"state"`
	Boot    string            `json:"boot,omitempty"`
	Daemon  string            `json:"daemon,omitempty"`
	Leaving bool              `json:"leaving,omitempty"`
	Why     string            `json:"why,omitempty"`
	Cause   cluster.EventID   `json:"cause,omitempty"`
	Time    time.Time         `json:"time"`
}

// Begin starts a plan if the group still has that epoch. An ID is given by
// Apply.
type Begin struct {
	Group cluster.GroupName `json:"group"`
	Epoch cluster.Epoch     `json:"epoch"`
	Plan  Plan              `json:"plan"`
	Count string            `json:"count,omitempty"` // the failover counter that this uses up
	Time  time.Time         `json:"time,omitzero"`   // the leader's wall clock
}

// Step is what a group's owner reports.
type Step string

// The steps.
const (
	StepStarted     Step = "started"      // everything is online (or its final action is to go on)
	StepStopped     Step = "stopped"      // everything is surely offline
	StepStartFailed Step = "start-failed" // retries are used up
	StepStopFailed  Step = "stop-failed"  // retries are used up; something may still run
	StepReleased    Step = "released"     // stopped here without a plan, for want of a lease
	StepFailed      Step = "failed"       // an active resource failed by itself
	StepChecked     Step = "checked"      // after a maintenance it was looked at anew
	StepClimbed     Step = "climbed"      // a stop goes on with the next rung; changes what is known of the resources alone
)

// Report is what a group's owner says about the epoch that it works on. A
// report of another epoch, or from another node, changes nothing.
type Report struct {
	Group     cluster.GroupName                 `json:"group"`
	Epoch     cluster.Epoch                     `json:"epoch"`
	Node      cluster.NodeName                  `json:"node"`
	Step      Step                              `json:"step"`
	Resource  cluster.ResourceName              `json:"resource,omitempty"` // the one that failed
	Why       string                            `json:"why,omitempty"`
	Cause     cluster.EventID                   `json:"cause,omitempty"`
	Resources map[cluster.ResourceName]Resource `json:"resources,omitempty"`
	Time      time.Time                         `json:"time,omitzero"` // the owner's wall clock
}

// Want says whether a group should run, without a plan.
type Want struct {
	Group  cluster.GroupName `json:"group"`
	Wanted bool              `json:"wanted"`
	Why    string            `json:"why"`
}

// Clear forgets the counters and exclusions of a group.
type Clear struct {
	Group cluster.GroupName `json:"group"`
}

// Forget drops what has counted last at Before or earlier: counters and
// exclusions of a group. Those whose time is not known stay.
type Forget struct {
	Group  cluster.GroupName `json:"group"`
	Before time.Time         `json:"before"`
}

// Hold has a group stay where it is, or releases it where Held is nil; then its
// failovers are counted anew.
type Hold struct {
	Group cluster.GroupName `json:"group"`
	Held  *Held             `json:"held,omitempty"`
	Why   string            `json:"why,omitempty"` // of a release
}

// SetQuarantine has a node be given no groups; its losses are counted anew. Where
// Quarantine is nil it ends the one until Until.
type SetQuarantine struct {
	Node       cluster.NodeName `json:"node"`
	Quarantine *Quarantine      `json:"quarantine,omitempty"`
	Until      time.Time        `json:"until,omitzero"`
	Why        string           `json:"why,omitempty"` // of an end
}

// Maintain begins or changes a maintenance. Where Set is nil it ends the one
// until Until.
type Maintain struct {
	Key   string       `json:"key"` // MaintenanceKey
	Set   *Maintenance `json:"set,omitempty"`
	Until time.Time    `json:"until,omitzero"`
	Why   string       `json:"why,omitempty"` // of an end
	Time  time.Time    `json:"time,omitzero"` // of an end: the leader's wall clock
}

// Suspend holds or releases a monitor on a node.
type Suspend struct {
	Monitor cluster.MonitorName `json:"monitor"`
	Node    cluster.NodeName    `json:"node"`
	On      bool                `json:"on"`
}

// SetToken stores a token, or forgets it where Token is nil.
type SetToken struct {
	ID    string `json:"id"`
	Token *Token `json:"token,omitempty"`
}

// SetLink merges a link into the one of that name, or forgets it where Link is
// nil.
type SetLink struct {
	Name cluster.LinkName `json:"name"`
	Link *Link            `json:"link,omitempty"`
}

// Encode returns the entry as it stands in the log.
func (e Entry) Encode() []byte {
	data, err := json.Marshal(e)
	if err != nil { // only values that always marshal are in it
		panic(fmt.Sprintf("state: encode an entry: %v", err))
	}
	return data
}

// DecodeEntry reads an entry of the log.
func DecodeEntry(data []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(data, &e); err != nil {
		return e, fmt.Errorf("read an entry of the replicated log: %w", err)
	}
	return e, nil
}

// down is in the text of every entry that declares a node down, as Encode
// writes it.
var down = []byte(`"` + string(cluster.NodeDown) + `"`)

// DeclaresDown returns the nodes that an entry of the log declares down. A voter
// must not accept such an entry while its promise to one of them runs.
func DeclaresDown(data []byte) ([]cluster.NodeName, error) {
	if !bytes.Contains(data, down) {
		return nil, nil // nearly all of them: not worth the decoding
	}
	e, err := DecodeEntry(data)
	if err != nil {
		return nil, err
	}
	var nodes []cluster.NodeName
	for _, c := range e.Commands {
		if c.Node != nil && c.Node.State == cluster.NodeDown {
			nodes = append(nodes, c.Node.Name)
		}
	}
	return nodes, nil
}
