// Package paths says where things are on a node.
package paths

import (
	"path/filepath"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Dirs are the directories of one node. The zero value is not usable; see At.
type Dirs struct {
	Etc   string // identity and scripts: /etc/tasuki
	State string // replicated state and events: /var/lib/tasuki
	Log   string // output of scripts: /var/log/tasuki
	Run   string // sockets: /run/tasuki
}

// At returns the directories below root; root "" or "/" is the machine itself.
func At(root string) Dirs {
	if root == "" {
		root = "/"
	}
	return Dirs{
		Etc:   filepath.Join(root, "etc/tasuki"),
		State: filepath.Join(root, "var/lib/tasuki"),
		Log:   filepath.Join(root, "var/log/tasuki"),
		Run:   filepath.Join(root, "run/tasuki"),
	}
}

// Witness returns the directories of one cluster that this machine is the witness
// of by "tasuki witness".
func (d Dirs) Witness(c cluster.Name) Dirs {
	return Dirs{
		Etc: filepath.Join(d.Etc, "witness", string(c)), State: filepath.Join(d.State, "witness", string(c)),
		Log: filepath.Join(d.Log, "witness", string(c)), Run: filepath.Join(d.Run, "witness", string(c)),
	}
}

// Socket is the local door of the daemon.
func (d Dirs) Socket() string { return filepath.Join(d.Run, "api.sock") }

// ResourceScript resolves a script of a resource: absolute paths stay.
func (d Dirs) ResourceScript(group, resource, file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(d.Etc, "scripts", group, resource, file)
}

// MonitorScript resolves a script of a monitor: absolute paths stay.
func (d Dirs) MonitorScript(monitor, file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(d.Etc, "scripts", "monitor.s", monitor, file)
}
