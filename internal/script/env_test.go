package script

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/resource"
)

var product = Product{Version: "1.2.3", OSName: "Some Linux 9", Bin: "/lab/bin", Extra: []string{"TASUKI_SOCKET=/run/x"}}

var general = []string{
	"PATH=/lab/bin:/opt/nec/clusterpro/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root",
	"LANG=C.UTF-8",
	"CLP_PATH=/opt/nec/clusterpro",
	"CLP_OSNAME=Some Linux 9",
	"CLP_VERSION_FULL=1.2.3",
	"TASUKI_CLUSTER=VMcluster",
	"TASUKI_NODE=CLP-2",
	"TASUKI_CAUSE=CLP-1/7",
	"TASUKI_SOCKET=/run/x",
}

func TestEnvForTask(t *testing.T) {
	task := resource.Task{
		Cluster: "VMcluster", Node: "CLP-2", Previous: "CLP-1", Epoch: 4, Cause: "CLP-1/7",
		Group:    config.Group{Name: "failover", Nodes: []cluster.NodeName{"CLP-1", "CLP-2"}},
		Resource: config.Resource{Name: "exec"},
		Event:    "FAILOVER", Factor: cluster.FactorGroupMove,
	}
	want := append(general[:len(general):len(general)],
		"CLP_EVENT=FAILOVER", "CLP_SERVER=OTHER", "CLP_DISK=SUCCESS", "CLP_FACTOR=GROUPMOVE",
		"CLP_GROUPNAME=failover", "CLP_RESOURCENAME=exec", "CLP_SERVER_PREV=CLP-1", "TASUKI_EPOCH=4")
	if diff := cmp.Diff(want, product.EnvForTask(task)); diff != "" {
		t.Error(diff)
	}
	task.Node, task.Event = "CLP-1", ""
	got := strings.Join(product.EnvForTask(task), "\n")
	for _, line := range []string{"CLP_SERVER=HOME", "CLP_EVENT=START"} {
		if !strings.Contains(got, line) {
			t.Errorf("%s is missing", line)
		}
	}
}

func TestEnvForMonitor(t *testing.T) {
	run := MonitorRun{
		Cluster: "VMcluster", Node: "CLP-2", Monitor: "miiw-vmnic1", Action: ActionFinal,
		Recoveries: 1, Restarts: 2, Failovers: 3, Cause: "CLP-1/7",
	}
	want := append(general[:len(general):len(general)], "CLP_MONITORNAME=miiw-vmnic1",
		"CLP_ACTION=FINALACTION", "CLP_RECOVERYCOUNT=1", "CLP_RESTARTCOUNT=2", "CLP_FAILOVERCOUNT=3")
	if diff := cmp.Diff(want, product.EnvForMonitor(run)); diff != "" {
		t.Error(diff)
	}
	run.Action = ""
	if diff := cmp.Diff(want[:len(general)+1], product.EnvForMonitor(run)); diff != "" {
		t.Errorf("of the check itself:\n%s", diff)
	}
	if diff := cmp.Diff(general, product.EnvForRequest("VMcluster", "CLP-2", "CLP-1/7")); diff != "" {
		t.Errorf("of a request:\n%s", diff)
	}
}

func TestOSName(t *testing.T) {
	if got := osName([]byte("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n")); got != "Debian GNU/Linux 12" {
		t.Errorf("got %q", got)
	}
	if got := osName(nil); got != "Linux" {
		t.Errorf("got %q", got)
	}
}

// The programs of the system are found on the path that scripts get.
func TestSearchPathFindsTools(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "command -v sleep && command -v ip || command -v ls")
	cmd.Env = product.EnvForRequest("c", "n", "")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s %v", out, err)
	}
}
