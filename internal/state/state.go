package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
)

// Bounds of what is kept.
const (
	MaxAnswers = 512 // answered asks
	MaxHistory = 20  // older texts of the cluster file
	MaxPlans   = 64  // ended plans
	MaxTimes   = 99  // of failovers of a group and losses of a node: as many as a file can ask about
)

// State is everything that the nodes agree on.
type State struct {
	Config   Text                         `json:"config"`
	History  []Text                       `json:"history,omitempty"` // oldest first, without the current one
	Nodes    map[cluster.NodeName]*Node   `json:"nodes"`
	Groups   map[cluster.GroupName]*Group `json:"groups"`
	Suspends map[string]bool              `json:"suspends,omitempty"` // MONITOR@NODE that an operator suspended

	Maintenance map[string]Maintenance `json:"maintenance,omitempty"` // by MaintenanceKey

	Links   map[cluster.LinkName]*Link `json:"links,omitempty"`
	Tokens  map[string]Token           `json:"tokens,omitempty"` // by token id
	Answers []Answer                   `json:"answers,omitempty"`

	Users    map[cluster.UserName]User `json:"users,omitempty"`
	Accesses map[string]Access         `json:"accesses,omitempty"` // by their id

	Plans   []EndedPlan `json:"plans,omitempty"`
	PlanSeq uint64      `json:"plan_seq"`

	Mirrors   map[cluster.ResourceName]*Mirror `json:"mirrors,omitempty"`    // of every mirror disk of the cluster file
	MirrorSeq uint64                           `json:"mirror_seq,omitempty"` // the latest Rev

	file *config.File // Config parsed
}

// Text is one version of the cluster file, as its author wrote it.
type Text struct {
	api.ConfigVersion
	Text string `json:"text"`
}

// Node is what is agreed on about one node.
type Node struct {
	State   cluster.NodeState `json:"state"`
	Boot    string            `json:"boot,omitempty"`   // changes with every boot of the machine
	Daemon  string            `json:"daemon,omitempty"` // changes with every start of the daemon
	Why     string            `json:"why,omitempty"`
	Since   time.Time         `json:"since"`
	Leaving bool              `json:"leaving,omitempty"` // a planned leave is under way; no group may come here

	Losses     []time.Time `json:"losses,omitempty"`     // when it was lost, not by a planned leave; oldest first, since its latest quarantine
	Quarantine *Quarantine `json:"quarantine,omitempty"` // it was lost too often
	Released   string      `json:"released,omitempty"`   // the boot in which an open quarantine was ended
}

// Quarantine is why and how long a node is given no groups, unless no other node
// can run them. An open one has no end but a release, and the node is given none
// at all.
type Quarantine struct {
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"` // zero: it is open
}

// Open says whether the quarantine ends by a release only.
func (q *Quarantine) Open() bool { return q.Until.IsZero() }

// Group is what is agreed on about one group.
type Group struct {
	Phase     cluster.Phase                     `json:"phase"`
	Owner     cluster.NodeName                  `json:"owner,omitempty"`    // where it is active, or being started or stopped
	Previous  cluster.NodeName                  `json:"previous,omitempty"` // where it ran before
	Epoch     cluster.Epoch                     `json:"epoch"`
	Wanted    bool                              `json:"wanted"` // it should run somewhere
	Plan      *Plan                             `json:"plan,omitempty"`
	Resources map[cluster.ResourceName]Resource `json:"resources,omitempty"`
	Failovers map[string]int                    `json:"failovers,omitempty"` // by resource or monitor, since the counters were cleared
	Counted   map[string]time.Time              `json:"counted,omitempty"`   // when each of Failovers was counted last, if that is known
	Excluded  map[cluster.NodeName]string       `json:"excluded,omitempty"`  // nodes where the activation failed, and why
	Failed    map[cluster.NodeName]time.Time    `json:"failed,omitempty"`    // since when each of Excluded is, if that is known
	Moves     []time.Time                       `json:"moves,omitempty"`     // the latest failovers by resources and monitors, oldest first
	Held      *Held                             `json:"held,omitempty"`      // it failed over too often and stays where it is
	Home      cluster.NodeName                  `json:"home,omitempty"`      // the node that a failback waits for until its copies are complete
	Recheck   time.Time                         `json:"recheck,omitzero"`    // a maintenance ended then, and its owner looks anew at what failed
	Why       string                            `json:"why,omitempty"`
	Cause     cluster.EventID                   `json:"cause,omitempty"`
}

// Held is why a group is not failed over by its resources and monitors.
type Held struct {
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
}

// Resource is what a group's owner last reported of one resource.
type Resource struct {
	State cluster.ResourceState `json:"state"`
	Why   string                `json:"why,omitempty"`
	Rung  cluster.Rung          `json:"rung,omitempty"` // how far its stop had to climb; "": it did not
}

// Action names what a plan does.
type Action string

// The actions of plans. A takeover has no stop step: its source is known to
// run nothing any more.
const (
	ActionStart    Action = "start"
	ActionStop     Action = "stop"
	ActionMove     Action = "move"
	ActionFailover Action = "failover"
	ActionTakeover Action = "takeover"
	ActionRestart  Action = "restart"
)

// Plan is an ordered change of one group: stop on From (if set), then start on
// To (if set).
type Plan struct {
	ID       string                 `json:"id"`
	Action   Action                 `json:"action"`
	From     cluster.NodeName       `json:"from,omitempty"`
	To       cluster.NodeName       `json:"to,omitempty"`
	Why      string                 `json:"why"`
	Cause    cluster.EventID        `json:"cause,omitempty"`
	Factor   cluster.Factor         `json:"factor"`
	Resource cluster.ResourceName   `json:"resource,omitempty"` // restart: only this one and what depends on it
	Wanted   bool                   `json:"wanted"`             // what Group.Wanted becomes when the plan begins
	Active   []cluster.ResourceName `json:"active,omitempty"`   // of a stop before a start elsewhere: what was active on From when the plan began, sorted
	After    string                 `json:"after,omitempty"`    // what the owner does when the plan has ended: a final action
}

// EndedPlan is how a plan ended.
type EndedPlan struct {
	Plan
	Group cluster.GroupName `json:"group"`
	OK    bool              `json:"ok"`
	Text  string            `json:"text"`
}

// Answer is what an ask came to. The same ask sent again gets it again.
type Answer struct {
	ID   cluster.RequestID `json:"id"`
	Err  *api.Error        `json:"err,omitempty"`
	Plan string            `json:"plan,omitempty"`
	Text string            `json:"text,omitempty"`
}

// Token is a one-time right to join or to link. The secret itself is not here.
type Token struct {
	Record  json.RawMessage     `json:"record"` // identity.TokenRecord
	Verbs   []cluster.Verb      `json:"verbs,omitempty"`
	Groups  []cluster.GroupName `json:"groups,omitempty"`
	Scripts []string            `json:"scripts,omitempty"`
	Guests  []cluster.GuestName `json:"guests,omitempty"`
}

// Link is another cluster.
type Link struct {
	CA      string              `json:"ca"` // PEM; the key by which it is known
	Asks    bool                `json:"asks,omitempty"`
	Verbs   []cluster.Verb      `json:"verbs,omitempty"`
	Groups  []cluster.GroupName `json:"groups,omitempty"`  // empty: all
	Scripts []string            `json:"scripts,omitempty"` // empty: all of the directory
	Guests  []cluster.GuestName `json:"guests,omitempty"`  // empty: none
	Asked   bool                `json:"asked,omitempty"`
	Nodes   []LinkNode          `json:"nodes,omitempty"`
}

// LinkNode is one node of another cluster, its addresses by priority.
type LinkNode struct {
	Name      cluster.NodeName `json:"name"`
	Addresses []string         `json:"addresses"` // HOST:PORT
}

// New returns the state of a cluster before its first command.
func New() *State {
	return &State{
		Nodes:    map[cluster.NodeName]*Node{},
		Groups:   map[cluster.GroupName]*Group{},
		Suspends: map[string]bool{},

		Maintenance: map[string]Maintenance{},
		Mirrors:     map[cluster.ResourceName]*Mirror{},

		Links:  map[cluster.LinkName]*Link{},
		Tokens: map[string]Token{},

		Users:    map[cluster.UserName]User{},
		Accesses: map[string]Access{},

		file: &config.File{},
	}
}

// File returns the cluster file in force. It must not be changed.
func (s *State) File() *config.File { return s.file }

// Marshal returns the state as a snapshot.
func (s *State) Marshal() ([]byte, error) { return json.Marshal(s) }

// Unmarshal reads a snapshot.
func Unmarshal(data []byte) (*State, error) { return UnmarshalLike(data, nil) }

// UnmarshalLike does the same. A cluster file that the other state has too, where
// there is one, is not read again.
func UnmarshalLike(data []byte, like *State) (*State, error) {
	s := New()
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read a snapshot of the replicated state: %w", err)
	}
	switch {
	case s.Config.Version == 0:
	case like != nil && like.Config.Version > 0 && like.Config.Text == s.Config.Text:
		s.file = like.file
	default:
		f, errs := config.Parse("cluster file", []byte(s.Config.Text))
		if len(errs) > 0 {
			return nil, fmt.Errorf("read the cluster file of a snapshot: %w", errs)
		}
		s.file = f
	}
	return s, nil
}

// Answered returns the answer that the ask of that id got, if it is known.
func (s *State) Answered(id cluster.RequestID) (Answer, bool) {
	for i := len(s.Answers) - 1; i >= 0; i-- {
		if s.Answers[i].ID == id {
			return s.Answers[i], true
		}
	}
	return Answer{}, false
}

// Ended returns how the plan ended, if it has ended and is still known.
func (s *State) Ended(id string) (EndedPlan, bool) {
	for i := len(s.Plans) - 1; i >= 0; i-- {
		if s.Plans[i].ID == id {
			return s.Plans[i], true
		}
	}
	return EndedPlan{}, false
}

// Up says whether the node is up and may be given groups.
func (s *State) Up(n cluster.NodeName) bool {
	node := s.Nodes[n]
	return node != nil && node.State == cluster.NodeUp && !node.Leaving
}

// GroupNames returns the names of all groups in the order of the file.
func (s *State) GroupNames() []cluster.GroupName {
	names := make([]cluster.GroupName, 0, len(s.file.Groups))
	for i := range s.file.Groups {
		names = append(names, s.file.Groups[i].Name)
	}
	return names
}

// OwnedBy returns the groups that the node owns, by name.
func (s *State) OwnedBy(n cluster.NodeName) []cluster.GroupName {
	var names []cluster.GroupName
	for _, g := range slices.Sorted(maps.Keys(s.Groups)) {
		if s.Groups[g].Owner == n {
			names = append(names, g)
		}
	}
	return names
}

// SuspendKey is the key of Suspends.
func SuspendKey(m cluster.MonitorName, n cluster.NodeName) string {
	return string(m) + "@" + string(n)
}
