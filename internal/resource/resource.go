// Package resource is the contract between the engine's edge and the kinds of
// resources. Adding a kind is adding a folder beside this file.
package resource

import (
	"context"
	"errors"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/state"
)

// Task is one resource on this node, with all that its driver may need to know.
// It is a value: it does not change while a step runs.
type Task struct {
	Cluster  cluster.Name
	Node     cluster.NodeName
	Group    config.Group
	Resource config.Resource
	Epoch    cluster.Epoch
	Event    string             // CLP_EVENT: START, FAILOVER, RECOVER
	Factor   cluster.Factor     // CLP_FACTOR
	Previous cluster.NodeName   // CLP_SERVER_PREV; "" if the group ran nowhere before
	Cause    cluster.EventID    // TASUKI_CAUSE of every program that runs for it
	Ended    []cluster.NodeName // of a start: nodes whose right to the group has provably ended, also if they do not know it
	Life     uint32             // of consensus, higher than of those that yielded to it: epochs are counted within one
	Down     []cluster.NodeName // of a start: nodes that are down or have left, with or without such proof: nobody is to be waited for
	Handed   bool               // of a start: it was active on Previous, which has confirmed its stop in the same plan
	Mirror   *state.Mirror      // of a start, stop or force of a mirror disk: what is agreed on about it
}

// Driver starts, stops, checks and isolates the resources of one kind. Its
// methods are called from one goroutine per resource, never twice at once for
// the same resource. ctx carries the time limit of the file; when it ends, the
// driver must leave nothing of its own running and return soon.
type Driver interface {
	// Start makes the resource active and returns when it is. Starting what is
	// active already succeeds. After an error the resource may be half active;
	// Stop follows.
	Start(ctx context.Context, t Task) error
	// Stop makes the resource inactive and returns when it is surely so.
	// Stopping what is inactive already succeeds.
	Stop(ctx context.Context, t Task) error
	// Force makes a resource inactive whose Stop has failed, by force: it ends
	// its processes, or takes away what it put into the system, and looks whether
	// that helped. An error if anything of it may still be active, also where
	// that cannot be known: the group is then not started elsewhere while this
	// node lives. how says what it took, for people.
	Force(ctx context.Context, t Task) (how string, err error)
	// Check says whether the resource is active on this node. The daemon asks
	// after its own restart, to take over what runs without touching it.
	Check(ctx context.Context, t Task) (active bool, err error)
	// Isolate makes the resource harmless at once: no clients, no writes. It
	// must be done within the time that ctx leaves. ErrCannotIsolate if the
	// kind has no quick way. Restore undoes it.
	Isolate(ctx context.Context, t Task) error
	Restore(ctx context.Context, t Task) error
}

// Announcer is a Driver of something that others find by asking the network.
type Announcer interface {
	// Announce tells the network again where an active resource is.
	Announce(t Task)
}

// Unblocker is a Driver of something in which those that use it may wait for ever,
// and not even a signal ends them then.
type Unblocker interface {
	// Unblock makes what waits in the resource fail, if it can never be done. It is
	// called before something is stopped that depends on the resource, whose own
	// Stop comes after that.
	Unblock(ctx context.Context, t Task) error
}

// ErrCannotIsolate is what kinds answer that can only be stopped.
var ErrCannotIsolate = errors.New("this kind of resource cannot be isolated")

// Failure tells that an active resource failed by itself, for example that a
// supervised process died or a floating IP was taken away.
type Failure struct {
	Group    cluster.GroupName
	Resource cluster.ResourceName
	Epoch    cluster.Epoch
	Text     string // lower case, what was seen
	At       time.Time
}

// Notice is a line for the operator's log about a resource.
type Notice struct {
	Level    cluster.Level
	Code     string // stable name
	Text     string // a sentence
	Group    cluster.GroupName
	Resource cluster.ResourceName
	Cause    cluster.EventID
}
