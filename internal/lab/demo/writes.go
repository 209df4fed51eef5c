package demo

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strconv"
	"time"

	"github.com/tasuki-ha/tasuki/examples"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/lab/ledger"
)

// scripts start and stop the business where it has a mirror disk.
//
//go:embed scripts
var scripts embed.FS

// ledgerPort is where scripts/start.sh has the ledger listen, and lanes how many
// writes are under way at a time in the demo.
const (
	ledgerPort = "8090"
	lanes      = 4
)

// Writes is what became of the writes of a client.
type Writes struct {
	Acknowledged int     `json:"writes_acknowledged"`
	Lost         int     `json:"writes_lost"`     // of them; not in the file at the end
	Twice        int     `json:"writes_twice"`    // there twice, since the first answer was lost
	OutageMS     float64 `json:"write_outage_ms"` // the longest time without an acknowledgement
}

// hasMirror says whether a group of a cluster file has a mirror disk.
func hasMirror(name string, file []byte) (bool, error) {
	f, errs := config.Parse(name, file)
	if f == nil {
		return false, errs
	}
	for _, g := range f.Groups {
		for _, r := range g.Resources {
			if r.MirrorDisk != nil {
				return true, nil
			}
		}
	}
	return false, nil
}

// Scripts installs the business's start and stop scripts on a machine: Apache,
// and the ledger if the group has a mirror disk.
func (s *Stage) Scripts(ctx context.Context, machine string) error {
	to := path.Join(etc, "scripts", s.Group, s.Resource) + "/"
	if s.Mirror {
		if err := s.copyScripts(ctx, machine, scripts, "scripts", to); err != nil {
			return err
		}
		to += "apache-"
	}
	return s.copyScripts(ctx, machine, examples.Files, "scripts/failover/exec", to)
}

// Writing is a client that writes to the ledger all the time.
type Writing struct {
	*ledger.Writer
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // of Run, when it has ended
}

// Close stops it and waits for the attempts under way.
func (w *Writing) Close() error {
	w.cancel()
	<-w.ended
	return w.err
}

// Write starts a writer with so many lanes, dialing from a machine's network,
// and returns when it is acknowledged.
func (s *Stage) Write(ctx context.Context, lanes int, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Writing, error) {
	target, err := url.Parse(s.URL)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	w := &Writing{cancel: cancel, ended: make(chan struct{}), Writer: &ledger.Writer{
		URL:  "http://" + net.JoinHostPort(target.Hostname(), ledgerPort),
		Name: strconv.FormatInt(time.Now().UnixNano(), 36), Lanes: lanes, Dial: dial,
	}}
	go func() {
		w.err = w.Run(running)
		close(w.ended)
	}()
	soon, end := context.WithTimeout(ctx, untilMost)
	defer end()
	if err := w.Await(soon, "", max(lanes, 1)); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// further is how many more writes are acknowledged before a writer stops.
const further = 20

// Stop stops it when further writes have been acknowledged, and says which writes are in the
// file of whoever serves it now. The outage is the longest one that ended after
// since.
func (w *Writing) Stop(ctx context.Context, since time.Time) (*Writes, error) {
	soon, cancel := context.WithTimeout(ctx, untilMost)
	defer cancel()
	if err := w.Await(soon, "", further); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	res, err := w.Check(ctx)
	if err != nil {
		return nil, err
	}
	var samples []Sample
	for _, a := range w.Acks() {
		samples = append(samples, Sample{Sent: a.Sent, Done: a.Done, Node: a.Node})
	}
	out := &Writes{Acknowledged: res.Acknowledged, Lost: len(res.Lost), Twice: res.Twice}
	if o, found := longest(samples, since); found {
		out.OutageMS = ms(o.Length())
	}
	return out, nil
}

// add joins what became of the writes of several runs.
func (w *Writes) add(o *Writes) *Writes {
	if w == nil || o == nil {
		return o
	}
	return &Writes{w.Acknowledged + o.Acknowledged, w.Lost + o.Lost, w.Twice + o.Twice, max(w.OutageMS, o.OutageMS)}
}

func (w *Writes) text() string {
	text := fmt.Sprintf("%d writes were acknowledged to it, and %d of them are lost. The longest time without an acknowledgement was %.1f ms.",
		w.Acknowledged, w.Lost, w.OutageMS)
	if w.Twice > 0 {
		text += fmt.Sprintf(" %d stand there twice: the answer was lost, and the client asked again.", w.Twice)
	}
	return text
}
