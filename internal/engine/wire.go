package engine

import (
	"encoding/json"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/admission"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/quorum"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// message is what machines send each other; exactly one of the later fields is
// set. JSON, because it is small, rare, and readable by neighbouring versions,
// which ignore what they do not know.
type message struct {
	Incarnation quorum.Incarnation `json:"i"`
	Raft        []byte             `json:"r,omitempty"`
	Blank       string             `json:"b,omitempty"` // with Raft: the life without state that the receiver is to end; see blankLife
	Ask         *admission.Ask     `json:"a,omitempty"`
	Reply       *reply             `json:"y,omitempty"`
	Verdicts    []verdictOf        `json:"v,omitempty"`
	Hears       []hearing          `json:"h,omitempty"`
	Mirrors     []mirrorCopyOf     `json:"m,omitempty"`
}

type reply struct {
	ID     cluster.RequestID `json:"id"`
	Answer state.Answer      `json:"answer"`
	Err    *api.Error        `json:"err,omitempty"`
	Retry  bool              `json:"retry,omitempty"` // we do not lead: ask again
}

func (m *Machine) send(to cluster.NodeName, bulk bool, msg message) {
	msg.Incarnation = m.meta.Incarnation
	data, err := json.Marshal(msg)
	must(err)
	m.eff.Sends = append(m.eff.Sends, Send{To: to, Bulk: bulk, Data: data})
}

func (m *Machine) takePeer(in PeerIn) {
	var msg message
	if json.Unmarshal(in.Data, &msg) != nil || m.file().Node(in.From) == nil {
		return
	}
	switch {
	case msg.Raft != nil:
		m.takeRaft(in.From, msg.Incarnation, msg.Raft, msg.Blank)
	case msg.Ask != nil:
		m.takeAsk(in.From, *msg.Ask)
	case msg.Reply != nil:
		m.takeReply(in.From, *msg.Reply)
	case msg.Verdicts != nil:
		m.takeVerdicts(in.From, msg.Verdicts)
	case msg.Hears != nil:
		m.takeHearings(in.From, msg.Hears)
	case msg.Mirrors != nil:
		m.peer(in.From).mirrors = msg.Mirrors
	}
}
