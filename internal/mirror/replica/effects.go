package replica

import (
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

// Do names an effect.
type Do uint8

// The effects, and what the caller answers each with.
const (
	DoLocal    Do = iota // carry out IO on the data device: LocalDone
	DoSend               // send IO to the other copy, a Copy with the data that is read for it: PeerDone, or Lost
	DoComplete           // IO is complete, with IO.Err: no answer
	DoMeta               // write Meta: MetaDone
	DoFrame              // send Frame with Payload on the control connection of session Link: no answer
	DoHangUp             // end session Link; Text says why: no answer
	DoAsk                // ask the cluster for the in-sync set Ask; a later one takes its place: Told when it has changed
	DoRole               // the role is Role now, durably: no answer
	DoFail               // this copy cannot go on as the active one; Text says why: no answer
	DoNotice             // a line for the operator's log: no answer
	DoGrown              // the device has Size bytes now: no answer
)

// Effect is one thing that the caller does. Effects are carried out in their
// order; those that are answered may overlap.
type Effect struct {
	Do      Do
	IO      *IO
	Meta    *MetaWrite
	Link    uint64
	Frame   wire.Frame
	Payload []byte
	Ask     Ask
	Role    Role
	Notice  Notice
	Text    string
	Size    int64
}

// MetaWrite is one change of the meta device. Its parts are written in this
// order, each durably before the next.
type MetaWrite struct {
	Pages []Page
	Log   []uint32 // extents; nil: unchanged
	Super *meta.Super
}

// Page is a bitmap page and its bits.
type Page struct {
	No   int
	Bits []byte
}

// Role is what a copy is.
type Role uint8

// The roles.
const (
	Standby Role = iota
	Active
)

// String returns its name in lower case.
func (r Role) String() string { return [...]string{"standby", "active"}[r] }

// Set is which copies are complete, as the cluster agreed.
type Set struct {
	Self, Peer bool
	Rev        uint64 // counts every change
}

// Ask is a wish for another set. It is void unless the agreed one still has Rev.
type Ask struct {
	Set
	Why string
}

// Notice is a line for the operator's log.
type Notice struct {
	Level string // info, warn or error
	Code  string // stable name
	Text  string // a sentence
}
