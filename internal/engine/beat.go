package engine

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/quorum"
)

// beat is a heartbeat. It travels as a message of the protocol buffers' wire
// format with the field numbers below: it is what machines say most often, and
// a neighbouring version passes over what it does not know.
type beat struct {
	Incarnation quorum.Incarnation  // 1, 2
	Boot        string              // 3
	Daemon      string              // 4
	Sent        cluster.Instant     // 5: on the sender's clock
	Ack         cluster.Instant     // 6: the latest Sent of the receiver that the sender acknowledges
	AckDaemon   string              // 7: the daemon whose heartbeat that was
	Lead        cluster.NodeName    // 8
	WaitOver    bool                // 9
	Departing   bool                // 10: it is about to stop by plan and wants to be no voter any more
	Active      []cluster.GroupName // 11: what it runs, in this life of consensus or an older one
	Acks        []cluster.NodeName  // 12: whose heartbeats the sender acknowledges
	Applied     uint64              // 13: how much of the log the sender has applied
	Heard       []int               // 14: indices of the receiver's addresses from which heartbeats arrive
	Life        uint64              // 15: how often this daemon has given up its state
	Deaf        bool                // 16: the sender has not heard the receiver for a while
	Resets      int                 // 17: as in Options
}

// maxToldResets bounds what is taken over of Resets.
const maxToldResets = 1000

// maxHeard bounds the indices in Heard; no node has as many addresses.
const maxHeard = 64

func (b *beat) encode() []byte {
	out := make([]byte, 0, 160)
	number := func(field protowire.Number, v uint64) {
		if v != 0 {
			out = protowire.AppendVarint(protowire.AppendTag(out, field, protowire.VarintType), v)
		}
	}
	text := func(field protowire.Number, s string) {
		if s != "" {
			out = protowire.AppendString(protowire.AppendTag(out, field, protowire.BytesType), s)
		}
	}
	number(1, uint64(b.Incarnation.Generation))
	text(2, string(b.Incarnation.Node))
	text(3, b.Boot)
	text(4, b.Daemon)
	number(5, uint64(b.Sent))
	number(6, uint64(b.Ack))
	text(7, b.AckDaemon)
	text(8, string(b.Lead))
	number(9, protowire.EncodeBool(b.WaitOver))
	number(10, protowire.EncodeBool(b.Departing))
	for _, g := range b.Active {
		text(11, string(g))
	}
	for _, n := range b.Acks {
		text(12, string(n))
	}
	number(13, b.Applied)
	for _, i := range b.Heard {
		number(14, uint64(i)+1)
	}
	number(15, b.Life)
	number(16, protowire.EncodeBool(b.Deaf))
	number(17, uint64(b.Resets))
	return out
}

// decodeBeat returns false for what is no heartbeat.
func decodeBeat(data []byte) (b beat, ok bool) {
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return beat{}, false
		}
		data = data[n:]
		switch kind {
		case protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(data); n >= 0 {
				b.number(field, v)
			}
		case protowire.BytesType:
			var v []byte
			if v, n = protowire.ConsumeBytes(data); n >= 0 {
				b.text(field, v)
			}
		default:
			n = protowire.ConsumeFieldValue(field, kind, data)
		}
		if n < 0 {
			return beat{}, false
		}
		data = data[n:]
	}
	return b, b.Sent > 0 && b.Ack >= 0
}

func (b *beat) number(field protowire.Number, v uint64) {
	switch field {
	case 1:
		b.Incarnation.Generation = cluster.Generation(v)
	case 5:
		b.Sent = cluster.Instant(v)
	case 6:
		b.Ack = cluster.Instant(v)
	case 9:
		b.WaitOver = v != 0
	case 10:
		b.Departing = v != 0
	case 13:
		b.Applied = v
	case 15:
		b.Life = v
	case 16:
		b.Deaf = v != 0
	case 17:
		b.Resets = int(min(v, maxToldResets))
	case 14:
		if v > 0 && v <= maxHeard && len(b.Heard) < maxHeard {
			b.Heard = append(b.Heard, int(v)-1)
		}
	}
}

func (b *beat) text(field protowire.Number, v []byte) {
	if len(v) == 0 {
		return // what is empty is not sent
	}
	switch field {
	case 2:
		b.Incarnation.Node = cluster.NodeName(v)
	case 3:
		b.Boot = string(v)
	case 4:
		b.Daemon = string(v)
	case 7:
		b.AckDaemon = string(v)
	case 8:
		b.Lead = cluster.NodeName(v)
	case 11:
		b.Active = append(b.Active, cluster.GroupName(v))
	case 12:
		b.Acks = append(b.Acks, cluster.NodeName(v))
	}
}
