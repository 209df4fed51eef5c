// Package control is how the daemon talks to the process that serves a mirror
// disk: JSON lines over a local socket that only root can open. The daemon sends
// Requests, and gets one Message for each, and Messages that nobody asked for in
// between. A daemon that starts anew connects again and is told where things
// stand; a process that starts anew is told what was agreed on meanwhile.
package control

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// Names of the files of one mirror disk, below its directory in the directory for
// running state.
const (
	FileSocket = "control" // the process listens there
	FileSpec   = "spec"    // Spec, written by the daemon before the process starts
	FileActive = "active"  // the Activation of an active copy, written by the process
	FileFault  = "fault"   // faults of the disks, in a lab: fault.data, fault.meta
	FileKeeper = "keeper"  // locked by the keeper as long as it lives
	// FileFrozen is there while the daemon wants the copy frozen: it is made before
	// Freeze and removed before Thaw, and by no process. A process that starts looks
	// for it after it listens at FileSocket, and before it takes up a request: so
	// whoever makes it either reaches the process, or the process sees it.
	FileFrozen = "frozen"
)

// Dir is the directory of a mirror disk below that for running state.
func Dir(run, resource string) string { return filepath.Join(run, "mirror", resource) }

// NBDIdentity is what the block device of a mirror disk is known by in the kernel,
// where its front end is NBD.
func NBDIdentity(resource string) string { return "tasuki:" + resource }

// Spec is what a serving process needs to know, and does not change while it
// runs.
type Spec struct {
	Resource string `json:"resource"`
	Node     string `json:"node"`
	Peer     string `json:"peer"` // the node of the other copy
	Data     string `json:"data"` // data device or file
	Meta     string `json:"meta"`
	Identity string `json:"identity"` // the directory of the node's identity

	Addresses     []netip.Addr `json:"addresses"` // of this node by priority, and of the other
	PeerAddresses []netip.Addr `json:"peer_addresses"`
	Port          uint16       `json:"port"`

	Async       bool          `json:"async,omitempty"`
	Queue       int64         `json:"queue,omitempty"`        // bytes that may be under way in async mode
	PeerTimeout time.Duration `json:"peer_timeout,omitempty"` // a copy that is silent for so long is lost
	IOTimeout   time.Duration `json:"io_timeout,omitempty"`   // a local disk that takes longer has failed
	Rate        int64         `json:"rate,omitempty"`         // of copying in bytes a second; 0: no limit
	Compress    bool          `json:"compress,omitempty"`
	InitialCopy bool          `json:"initial_copy,omitempty"`
	SplitBrain  string        `json:"split_brain,omitempty"` // replica.Policy
	FrontEnd    string        `json:"front_end,omitempty"`   // auto, fuse, nbd, or none for measurements
	Lab         bool          `json:"lab,omitempty"`         // faults may be asked for by FileFault
}

// WriteSpec keeps a Spec where the process finds it, and says whether it is
// another one than before.
func WriteSpec(dir string, s Spec) (changed bool, err error) {
	data, err := json.Marshal(s)
	if err != nil {
		return false, err
	}
	path := filepath.Join(dir, FileSpec)
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return false, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, fmt.Errorf("make the directory of a mirror disk: %w", err)
	}
	if err := renameio.WriteFile(path, data, 0o600); err != nil {
		return false, fmt.Errorf("tell a mirror disk what it is: %w", err)
	}
	return true, nil
}

// ReadSpec reads what WriteSpec wrote.
func ReadSpec(dir string) (s Spec, err error) {
	data, err := os.ReadFile(filepath.Join(dir, FileSpec))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return s, fmt.Errorf("read what a mirror disk is: %w", err)
	}
	return s, nil
}

// Set is replica.Set.
type Set struct {
	Self bool   `json:"self,omitempty"`
	Peer bool   `json:"peer,omitempty"`
	Rev  uint64 `json:"rev"`
}

// Verb is what the daemon asks for.
type Verb string

// The verbs.
const (
	// Activate makes this the active copy in Epoch and attaches the block device;
	// the answer has its Path. PeerDown says that nobody has to be waited for.
	// Construct makes a copy on a meta device that is blank. What is active already
	// in that epoch answers at once.
	Activate Verb = "activate"
	// Deactivate takes the block device away and ends the active part. Busy while
	// something has it open. With Force everything that waits fails first.
	Deactivate Verb = "deactivate"
	// Freeze holds every request of the kernel until Thaw.
	Freeze Verb = "freeze"
	Thaw   Verb = "thaw"
	// Told brings what the cluster has agreed on: Set, Victim, Paused. With an Epoch
	// nothing of an earlier one counts any more.
	Told Verb = "told"
	// Assigned tells a standby in which epoch the other node owns the group.
	Assigned Verb = "assigned"
	// Copy has the other copy copied to: what differs, or with Thorough everything.
	Copy Verb = "copy"
	// Verify compares the copies, and with Thorough copies what differs.
	Verify Verb = "verify"
	// Grow takes the new sizes of the devices of both nodes into use.
	Grow Verb = "grow"
	// Query asks for a Status.
	Query Verb = "query"
	// Quit ends a standby's process, or restarts an active copy's.
	Quit Verb = "quit"
)

// Sides that Victim names.
const (
	VictimSelf = "self"
	VictimPeer = "peer"
)

// Request is one line from the daemon.
type Request struct {
	ID        uint64 `json:"id"`
	Do        Verb   `json:"do"`
	Epoch     uint64 `json:"epoch,omitempty"`
	Set       *Set   `json:"set,omitempty"`
	Force     bool   `json:"force,omitempty"`
	Construct bool   `json:"construct,omitempty"`
	PeerDown  bool   `json:"peer_down,omitempty"`
	Thorough  bool   `json:"thorough,omitempty"`
	Victim    string `json:"victim,omitempty"`
	Paused    bool   `json:"paused,omitempty"`
}

// Code tells errors apart.
type Code string

// The codes of errors that the daemon treats in a way of their own.
const (
	Busy      Code = "busy"       // the block device is in use
	OutOfDate Code = "outofdate"  // this copy may not become active
	Blank     Code = "blank"      // there is nothing on the meta device
	Failed    Code = "failed"     // the disk of this copy has failed
	OldEpoch  Code = "old-epoch"  // a later assignment is known
	NotActive Code = "not-active" //
)

// Message is one line to the daemon. One field but ID is set; an answer that
// needs no words has none.
type Message struct {
	ID     uint64  `json:"id,omitempty"` // of the Request that it answers; 0: of none
	Error  string  `json:"error,omitempty"`
	Code   Code    `json:"code,omitempty"` // of Error
	Path   string  `json:"path,omitempty"` // of the block device
	Ask    *Ask    `json:"ask,omitempty"`
	Notice *Notice `json:"notice,omitempty"`
	Fail   string  `json:"fail,omitempty"` // why this copy cannot go on as the active one
	Status *Status `json:"status,omitempty"`
}

// Ask is a wish for another in-sync set; a later one takes its place. It is void
// unless the agreed one has Rev.
type Ask struct {
	Set
	Epoch uint64 `json:"epoch"` // in which the copy became active
	Why   string `json:"why"`
}

// Notice is a line for the operator's log.
type Notice struct {
	Level string `json:"level"` // info, warn or error
	Code  string `json:"code"`
	Text  string `json:"text"`
}

// RoleEnding is the Role of a copy that was given up while its disk did not
// answer: it has no block device any more and reaches nobody, and is a standby when
// the disk has answered.
const RoleEnding = "ending"

// Status is what a copy says of itself.
type Status struct {
	Role      string `json:"role"`  // active, standby, RoleEnding
	Phase     string `json:"phase"` // of the active copy: how far it is with the other one
	Epoch     uint64 `json:"epoch"`
	Set       Set    `json:"set"` // as it was told
	Device    string `json:"device,omitempty"`
	Size      int64  `json:"size,omitempty"` // bytes
	Connected bool   `json:"connected"`
	Split     string `json:"split,omitempty"`    // why the two copies cannot be joined by themselves
	Broken    string `json:"broken,omitempty"`   // why this copy cannot go on
	Apart     string `json:"apart,omitempty"`    // why the other copy is not connected
	Frozen    bool   `json:"frozen,omitempty"`   //
	Target    bool   `json:"target,omitempty"`   // it is being copied to, and not complete
	Complete  bool   `json:"complete,omitempty"` // it was complete when it was last known
	Blank     bool   `json:"blank,omitempty"`    // it was never made
	Failed    bool   `json:"failed,omitempty"`   // its disk had an error, and has not proven itself since

	Dirty      int64         `json:"dirty"`           // bytes that differ, or may
	Total      int64         `json:"total,omitempty"` // bytes to copy or compare when that began
	Left       int64         `json:"left,omitempty"`  // of it, bytes
	Speed      int64         `json:"speed,omitempty"` // of it, bytes a second
	ETA        time.Duration `json:"eta,omitempty"`   //
	Verifying  bool          `json:"verifying,omitempty"`
	Generation string        `json:"generation,omitempty"`
	Since      time.Time     `json:"since,omitzero"`   // of the generation
	Written    time.Time     `json:"written,omitzero"` // when this copy last wrote as the active one

	Reads      uint64        `json:"reads"`  // requests of the kernel, since the process started
	Writes     uint64        `json:"writes"` //
	ReadBytes  uint64        `json:"read_bytes"`
	WriteBytes uint64        `json:"write_bytes"`
	Waiting    int           `json:"waiting"`          // requests under way
	Oldest     time.Duration `json:"oldest,omitempty"` // how long the oldest of them has waited
	OldestDisk time.Duration `json:"oldest_disk,omitempty"`
	Peer       string        `json:"peer,omitempty"` // the address of the other copy
	Version    string        `json:"version,omitempty"`
	PID        int           `json:"pid,omitempty"`
}
