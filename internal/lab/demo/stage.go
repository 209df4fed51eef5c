package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/examples"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/lab"
)

// Stage is the installation of the reference scenario in a lab: the guest
// cluster and the host's, linked, with the administrator's scripts in place.
type Stage struct {
	Lab    *lab.Lab
	Host   string   // the host whose agent asks
	Guests []string // the first makes the cluster
	Client string
	URL    string
	// Names are pairs of what the examples say and what is said instead, for
	// installations with other names and addresses.
	Names    []string
	Group    string // as renamed
	Resource string // the script resource, as renamed
	// Mirror says that the group has a mirror disk on /data: then the business
	// keeps its data there. Build finds it in the cluster file.
	Mirror bool
}

// Reference returns the stage of the reference scenario for a lab of the
// reference layout. The agent is on the host of the guest where the group is to
// be when the cable is pulled.
func Reference(l *lab.Lab, start string) *Stage {
	s := &Stage{Lab: l, Host: host, Guests: []string{active, standby}, Client: "client", URL: "http://10.2.102.50/", Group: "failover", Resource: "exec"}
	if start == standby {
		s.Host = "bay8-esx"
		s.Names = []string{host, s.Host, "10.2.102.17", "10.2.102.18"}
	}
	return s
}

const (
	etc        = "/etc/tasuki"
	requestDir = "/opt/nec/clusterpro/work/clptrnreq"
)

// example returns a file of the examples with the names of this stage.
func (s *Stage) example(name string) ([]byte, error) {
	data, err := examples.Files.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read an example: %w", err)
	}
	return []byte(strings.NewReplacer(s.Names...).Replace(string(data))), nil
}

// Do runs a command in a machine and returns its output.
func (s *Stage) Do(ctx context.Context, machine string, argv ...string) (string, error) {
	r, err := s.Lab.Exec(ctx, machine, argv...)
	if err != nil {
		return "", fmt.Errorf("%s on %s: %w", strings.Join(argv, " "), machine, err)
	}
	if r.Code != 0 {
		return string(r.Stdout), fmt.Errorf("%s on %s ended with %d: %s", strings.Join(argv, " "), machine, r.Code, strings.TrimSpace(string(r.Stderr)))
	}
	return string(r.Stdout), nil
}

// copyScripts copies all files below a directory, with the names of this stage.
// to is what stands before their names, as a rule a directory with its slash.
func (s *Stage) copyScripts(ctx context.Context, machine string, files fs.FS, from, to string) error {
	names := strings.NewReplacer(s.Names...)
	return fs.WalkDir(files, from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		path := to + names.Replace(strings.TrimPrefix(name, from+"/"))
		return s.Lab.WriteFile(ctx, machine, path, 0o755, []byte(names.Replace(string(data))))
	})
}

// Build installs everything and waits until the group is active and the host
// can reach both guests. say is told each step.
func (s *Stage) Build(ctx context.Context, say func(string)) error {
	file, err := s.example("vmcluster.yaml")
	if err != nil {
		return err
	}
	if s.Mirror, err = hasMirror("vmcluster.yaml", file); err != nil {
		return err
	}
	for _, g := range s.Guests {
		say("install " + g)
		if err := s.Scripts(ctx, g); err != nil {
			return err
		}
		if err := s.copyScripts(ctx, g, examples.Files, "scripts/clptrnreq", requestDir+"/"); err != nil {
			return err
		}
		if err := s.names(ctx, g); err != nil {
			return err
		}
	}
	say("install " + s.Host)
	if err := s.copyScripts(ctx, s.Host, examples.Files, "scripts/monitor.s", etc+"/scripts/monitor.s/"); err != nil {
		return err
	}
	if err := s.names(ctx, s.Host); err != nil {
		return err
	}
	if err := s.Cluster(ctx, file, say, s.Guests...); err != nil {
		return err
	}
	if file, err = s.example("bay7-esx.yaml"); err != nil {
		return err
	}
	if err := s.Cluster(ctx, file, say, s.Host); err != nil {
		return err
	}
	return s.link(ctx, say)
}

// Cluster makes a cluster of machines by a cluster file and starts their
// daemons.
func (s *Stage) Cluster(ctx context.Context, file []byte, say func(string), machines ...string) error {
	if err := s.found(ctx, machines[0], file, say); err != nil {
		return err
	}
	for _, m := range machines[1:] {
		if err := s.joins(ctx, machines[0], m, say); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stage) names(ctx context.Context, machine string) error {
	_, err := s.Do(ctx, machine, "tasuki", "link-names", "/usr/sbin", "/opt/nec/clusterpro/bin")
	return err
}

// found makes a cluster on a machine and starts its daemon.
func (s *Stage) found(ctx context.Context, machine string, file []byte, say func(string)) error {
	say("make a cluster on " + machine)
	if err := s.Lab.WriteFile(ctx, machine, "/root/cluster.yaml", 0o644, file); err != nil {
		return err
	}
	if _, err := s.Do(ctx, machine, "tasuki", "init", "/root/cluster.yaml", "--node", machine); err != nil {
		return err
	}
	return s.start(ctx, machine)
}

func (s *Stage) start(ctx context.Context, machine string) error {
	if _, err := s.Lab.Service(ctx, machine, "start"); err != nil {
		return fmt.Errorf("start the daemon on %s: %w", machine, err)
	}
	return s.Answers(ctx, machine)
}

// Answers waits until a machine's daemon answers.
func (s *Stage) Answers(ctx context.Context, machine string) error {
	return s.Until(ctx, "the daemon on "+machine+" answers", func() (bool, error) {
		_, err := s.Status(ctx, machine)
		return err == nil, nil
	})
}

func (s *Stage) joins(ctx context.Context, first, machine string, say func(string)) error {
	say(machine + " joins")
	token, err := s.Do(ctx, first, "tasuki", "token", "join", "--node", machine)
	if err != nil {
		return err
	}
	if _, err := s.Do(ctx, machine, "tasuki", "join", strings.TrimSpace(token), "--node", machine); err != nil {
		return err
	}
	return s.start(ctx, machine)
}

// link links the two clusters and waits until all is well.
func (s *Stage) link(ctx context.Context, say func(string)) error {
	say("link " + s.Host + " with the guests")
	token, err := s.Do(ctx, s.Guests[0], "tasuki", "link", "invite", s.Host, "--verbs", "GRP_FAILOVER,EXEC_SCRIPT", "--groups", s.Group)
	if err != nil {
		return err
	}
	if _, err := s.Do(ctx, s.Host, "tasuki", "link", "add", strings.TrimSpace(token)); err != nil {
		return err
	}
	say("wait until group " + s.Group + " is active and all is reachable")
	if err := s.Until(ctx, "group "+s.Group+" is active, and every copy complete", func() (bool, error) {
		st, err := s.Status(ctx, s.Guests[0])
		return err == nil && s.active(&st) != "" && allUp(&st) && mirrored(&st), nil
	}); err != nil {
		return err
	}
	return s.Until(ctx, "the host reaches the guests", func() (bool, error) {
		st, err := s.Status(ctx, s.Host)
		if err != nil || len(st.Links) == 0 {
			return false, nil
		}
		for _, n := range st.Links[0].Nodes {
			if !n.Reachable {
				return false, nil
			}
		}
		return true, nil
	})
}

// active returns where the group is online, or "".
func (s *Stage) active(st *api.Status) cluster.NodeName {
	for _, g := range st.Groups {
		if string(g.Name) == s.Group && g.Phase == cluster.PhaseOnline && g.Plan == nil {
			return g.Owner
		}
	}
	return ""
}

func allUp(st *api.Status) bool {
	for _, n := range st.Nodes {
		if n.State != cluster.NodeUp || !n.Voter {
			return false
		}
	}
	return true
}

// mirrored says whether every copy of every mirror disk is complete, so that
// either node can be active.
func mirrored(st *api.Status) bool {
	return !slices.ContainsFunc(st.Mirrors, func(m api.Mirror) bool { return len(m.InSync) < len(m.Copies) })
}

// Status returns what a machine's daemon says.
func (s *Stage) Status(ctx context.Context, machine string) (st api.Status, err error) {
	out, err := s.Do(ctx, machine, "tasuki", "status", "--json")
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal([]byte(out), &st)
}

// Active returns where the group is online as a machine sees it, or "".
func (s *Stage) Active(ctx context.Context, machine string) cluster.NodeName {
	st, err := s.Status(ctx, machine)
	if err != nil {
		return ""
	}
	return s.active(&st)
}

// Events returns the whole log as a machine holds it.
func (s *Stage) Events(ctx context.Context, machine string) ([]api.Event, error) {
	out, err := s.Do(ctx, machine, "tasuki", "event", "--json", "-n", "0")
	if err != nil {
		return nil, err
	}
	var events []api.Event
	dec := json.NewDecoder(strings.NewReader(out))
	for dec.More() {
		var e api.Event
		if err := dec.Decode(&e); err != nil {
			return nil, fmt.Errorf("read the log of %s: %w", machine, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// untilMost bounds Until.
const untilMost = 30 * time.Second

// Until asks f every few milliseconds until it says true.
func (s *Stage) Until(ctx context.Context, what string, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, untilMost)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := f()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not in time: %s", what)
		}
	}
}
