package script

import (
	"os"
	"strconv"
	"strings"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

// productPath is where scripts expect the clp* commands: CLP_PATH.
const productPath = "/opt/nec/clusterpro"

// searchPath is the PATH of every program, after Product.Bin.
const searchPath = productPath + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Product is what the environment of every program says about this installation.
type Product struct {
	Version string   // CLP_VERSION_FULL
	OSName  string   // CLP_OSNAME
	Bin     string   // a directory before all others in PATH; "" is none
	Extra   []string // NAME=VALUE, for example where the socket of this daemon is
}

// ThisProduct describes this machine.
func ThisProduct(version string) Product {
	b, _ := os.ReadFile("/etc/os-release")
	return Product{Version: version, OSName: osName(b)}
}

// osName is PRETTY_NAME of an os-release file, or Linux.
func osName(release []byte) string {
	for line := range strings.Lines(string(release)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return "Linux"
}

// The values of CLP_ACTION: before which rung of the ladder a script runs.
const (
	ActionRecovery = "RECOVERY"
	ActionRestart  = "RESTART"
	ActionFailover = "FAILOVER"
	ActionFinal    = "FINALACTION"
)

// MonitorRun is one run of a program for a monitor.
type MonitorRun struct {
	Cluster cluster.Name
	Node    cluster.NodeName
	Monitor cluster.MonitorName
	Action  string // ActionRecovery…; "" if the program is the check itself
	// How often each rung was climbed so far, this time included.
	Recoveries, Restarts, Failovers int
	Cause                           cluster.EventID
}

func (p Product) general(c cluster.Name, n cluster.NodeName, cause cluster.EventID) []string {
	path := searchPath
	if p.Bin != "" {
		path = p.Bin + ":" + path
	}
	env := []string{
		"PATH=" + path,
		"HOME=/root",
		"LANG=C.UTF-8",
		"CLP_PATH=" + productPath,
		"CLP_OSNAME=" + p.OSName,
		"CLP_VERSION_FULL=" + p.Version,
		"TASUKI_CLUSTER=" + string(c),
		"TASUKI_NODE=" + string(n),
		"TASUKI_CAUSE=" + string(cause),
	}
	return append(env, p.Extra...)
}

// EnvForTask is the environment of a resource's start and stop script.
func (p Product) EnvForTask(t resource.Task) []string {
	event, home := t.Event, "OTHER"
	if event == "" {
		event = "START" // scripts take none for a run by hand
	}
	if len(t.Group.Nodes) == 0 || t.Group.Nodes[0] == t.Node {
		home = "HOME"
	}
	return append(p.general(t.Cluster, t.Node, t.Cause),
		"CLP_EVENT="+event,
		"CLP_SERVER="+home,
		"CLP_DISK=SUCCESS",
		"CLP_FACTOR="+string(t.Factor),
		"CLP_GROUPNAME="+string(t.Group.Name),
		"CLP_RESOURCENAME="+string(t.Resource.Name),
		"CLP_SERVER_PREV="+string(t.Previous),
		"TASUKI_EPOCH="+strconv.FormatUint(uint64(t.Epoch), 10))
}

// EnvForMonitor is the environment of a monitor's script: before a rung of the
// ladder, or as the check itself.
func (p Product) EnvForMonitor(m MonitorRun) []string {
	env := append(p.general(m.Cluster, m.Node, m.Cause), "CLP_MONITORNAME="+string(m.Monitor))
	if m.Action == "" {
		return env
	}
	return append(env,
		"CLP_ACTION="+m.Action,
		"CLP_RECOVERYCOUNT="+strconv.Itoa(m.Recoveries),
		"CLP_RESTARTCOUNT="+strconv.Itoa(m.Restarts),
		"CLP_FAILOVERCOUNT="+strconv.Itoa(m.Failovers))
}

// EnvForRequest is the environment of a program that another cluster asked for.
func (p Product) EnvForRequest(c cluster.Name, n cluster.NodeName, cause cluster.EventID) []string {
	return p.general(c, n, cause)
}
