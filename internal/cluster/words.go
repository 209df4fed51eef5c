package cluster

// Phase is where a group stands.
type Phase string

// The phases of a group. A group in PhaseFailed holds what could be started
// and waits for an operator or for a recovery.
const (
	PhaseOffline  Phase = "offline"
	PhaseStarting Phase = "starting"
	PhaseOnline   Phase = "online"
	PhaseStopping Phase = "stopping"
	PhaseFailed   Phase = "failed"
)

// ResourceState is where one resource stands on the node that owns its group.
type ResourceState string

// The states of a resource.
const (
	ResourceOffline     ResourceState = "offline"
	ResourceStarting    ResourceState = "starting"
	ResourceOnline      ResourceState = "online"
	ResourceStopping    ResourceState = "stopping"
	ResourceStartFailed ResourceState = "start-failed"
	ResourceStopFailed  ResourceState = "stop-failed"
	ResourceFailed      ResourceState = "failed" // was online and failed by itself
)

// NodeState is where a node stands as the cluster sees it.
type NodeState string

// The states of a node. NodeLeft is a planned absence, NodeDown an unplanned
// one, NodeUnknown a node that has not been seen since the cluster started.
const (
	NodeUnknown NodeState = "unknown"
	NodeUp      NodeState = "up"
	NodeLeft    NodeState = "left"
	NodeDown    NodeState = "down"
)

// Verdict is what is known about the thing that a monitor watches.
type Verdict string

// The verdicts. Suspect is bad news that the debounce or the retries have not
// confirmed yet.
const (
	VerdictUnknown   Verdict = "unknown"
	VerdictGood      Verdict = "good"
	VerdictSuspect   Verdict = "suspect"
	VerdictBad       Verdict = "bad"
	VerdictSuspended Verdict = "suspended"
)

// Level is the weight of an event.
type Level string

// The levels, as clplogcmd names them.
const (
	LevelInfo  Level = "info"
	LevelWarn  Level = "warn"
	LevelError Level = "error"
)

// FinalAction is what happens when retries and failovers are used up.
type FinalAction string

// The final actions and the code that each has in a CLUSTERPRO file.
const (
	ActionContinue      FinalAction = "continue"       // 0 of a resource: go on with the next resource
	ActionNone          FinalAction = "none"           // 1: do nothing, do not go on
	ActionStopGroup     FinalAction = "stop-group"     // 2
	ActionStopDaemon    FinalAction = "stop-daemon"    // 3
	ActionShutdown      FinalAction = "shutdown"       // 4: stop the daemon and power the OS off
	ActionReboot        FinalAction = "reboot"         // 5: stop the daemon and reboot the OS
	ActionPanic         FinalAction = "panic"          // 8: sysrq panic
	ActionWatchdogReset FinalAction = "watchdog-reset" // 9: let the watchdog expire
	ActionStopResource  FinalAction = "stop-resource"  // 16, monitors only
)

// Rung is how far the stop of a resource had to climb after its tries failed.
// The zero value is the tries themselves.
type Rung string

// The rungs of a stop.
const (
	RungForce Rung = "force"        // its processes are killed, what it put into the system is removed
	RungFinal Rung = "final-action" // the group is isolated, and the final action ends this node's part
)

// Verb is what one cluster may ask another to do.
type Verb string

// The verbs. Those of clptrnreq have its names.
const (
	VerbGroupFailover Verb = "GRP_FAILOVER"
	VerbExecScript    Verb = "EXEC_SCRIPT"
	VerbFence         Verb = "fence" // a guest of the host that is asked: power it off, and confirm it
)

// PowerAction is what is wanted of a guest's power.
type PowerAction string

// The actions. A linked cluster can ask for off and status; on is for the
// operator of the host.
const (
	PowerOff    PowerAction = "off"
	PowerOn     PowerAction = "on"
	PowerStatus PowerAction = "status"
)

// Power is whether a guest has power. There is no value for "not known": that
// is an error.
type Power string

// The states of power. A guest that is paused has power.
const (
	Off Power = "off"
	On  Power = "on"
)

// Factor says why a resource's script runs: CLP_FACTOR of the script.
type Factor string

// The factors that Tasuki gives.
const (
	FactorClusterStart    Factor = "CLUSTERSTART"
	FactorClusterShutdown Factor = "CLUSTERSHUTDOWN"
	FactorServerShutdown  Factor = "SERVERSHUTDOWN"
	FactorGroupStart      Factor = "GROUPSTART"
	FactorGroupStop       Factor = "GROUPSTOP"
	FactorGroupMove       Factor = "GROUPMOVE"
	FactorGroupFailover   Factor = "GROUPFAILOVER"
	FactorGroupRestart    Factor = "GROUPRESTART"
	FactorResourceRestart Factor = "RESOURCERESTART"
)

// Role is what a user, or the holder of an access token, may do. None includes
// another.
type Role string

// The roles.
const (
	RoleRead      Role = "read"      // see everything
	RoleOperate   Role = "operate"   // start, stop and move groups, and whatever else is done by hand every day
	RoleConfigure Role = "configure" // change the cluster file, links, users and tokens
	RoleFence     Role = "fence"     // force nodes and guests off, and vouch for others being off
	RoleRequest   Role = "request"   // ask linked clusters
)

// Roles returns all roles, the least first.
func Roles() []Role {
	return []Role{RoleRead, RoleOperate, RoleRequest, RoleFence, RoleConfigure}
}
