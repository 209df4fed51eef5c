package resource

import (
	"context"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Follower is a Driver that has something to do on nodes where its resources are
// not active too.
type Follower interface {
	// Follow is called with the cluster file in force when the daemon starts and
	// whenever another one comes into force, never twice at once. It must not
	// block for long; what it begins goes on until ctx ends, which is the end of
	// the daemon. Settings of an active resource change in this way only where
	// config.Diff calls the change harmless (EffectNone).
	Follow(ctx context.Context, f *config.File)
}

// Mirrorer is a Driver of mirror disks: it is told what the cluster has agreed
// on about those that have a copy on this node. Its methods are called from one
// goroutine, in the order in which things were agreed on, and must return at
// once, without asking anything themselves. They may come before Follow has named
// the resource, as a Start may.
type Mirrorer interface {
	// Told is called once after the start of the daemon, once in every life of
	// consensus, and whenever what is agreed on changes. Of two calls the later one
	// holds, whatever their Rev. m shares nothing with anybody.
	// life is of the life of consensus that agreed, as Task.Life.
	Told(r cluster.ResourceName, m state.Mirror, life uint32)
	// Refused says that the latest MirrorAsk about the resource has come to
	// nothing and is not repeated: the group is another node's, or it would leave
	// no complete copy. What waits for it must fail.
	Refused(r cluster.ResourceName, why string)
}

// MirrorAsk is what the active copy of a mirror disk asks of the cluster: another
// in-sync set, or the same again in a new revision. It is repeated until the
// mirror has another revision (Told), be it this or another change, or it comes
// to nothing (Refused); a later one about the same resource takes its place.
type MirrorAsk struct {
	Resource cluster.ResourceName
	Epoch    cluster.Epoch      // Task.Epoch of the Start in which the copy became active
	Base     uint64             // state.Mirror.Rev that it knew last; void once there is another one
	InSync   []cluster.NodeName // whose copy is complete from then on
	Why      string             // lower case, for people
	Cause    cluster.EventID
}

// MirrorStatus is what a copy says of itself, for people: whenever it changes,
// and about once a second while it is copied.
type MirrorStatus struct {
	Resource cluster.ResourceName
	Copy     api.MirrorCopy // Node need not be set
}
