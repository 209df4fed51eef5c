package demo

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/lab"
)

// The test program is the machines' tasuki too.
func TestMain(m *testing.M) {
	if was, err := lab.Hidden(context.Background(), os.Args[1:]); was {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// single starts a lab of one node and a client.
func single(t *testing.T) *lab.Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: CI must run the lab tests as root")
		}
		t.Skip("needs root: namespaces")
	}
	layout, err := lab.Load("single")
	must(t, err)
	l, err := lab.Start(t.Context(), lab.Options{Layout: layout, Name: fmt.Sprintf("demo%d", os.Getpid()), Attached: true})
	must(t, err)
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestProberInALab(t *testing.T) {
	l := single(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "n1 at your service") })}
	must(t, l.Do(t.Context(), "n1", func() error {
		listener, err := net.Listen("tcp", ":80")
		if err == nil {
			go server.Serve(listener)
		}
		return err
	}))
	t.Cleanup(func() { server.Close() })
	from, err := l.Namespace(t.Context(), "client")
	must(t, err)
	p := &Prober{URL: "http://10.30.1.1/", Dial: from.DialContext}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	node, err := p.Await(ctx, 50)
	if err != nil || node != "n1" {
		t.Fatal(node, err)
	}
	must(t, l.Pull(ctx, "n1", "eth0"))
	pulled := time.Now()
	<-time.After(200 * time.Millisecond)
	must(t, l.Plug(ctx, "n1", "eth0"))
	plugged := time.Now()
	_, err = p.Await(ctx, 20)
	must(t, err)
	cancel()
	must(t, <-done)
	o, found := longest(p.Samples(), pulled)
	if !found || o.Length() < 195*time.Millisecond || o.From.After(pulled) || o.To.Before(plugged.Add(-20*time.Millisecond)) || o.Failed == 0 {
		t.Errorf("%+v, %v long, plugged in at %v", o, o.Length(), plugged)
	}
	t.Logf("pulled for %v, measured %v, %d of %d requests failed, %d late", plugged.Sub(pulled), o.Length(), o.Failed, o.Sent, p.Late())
}

// onDisk is the business of the demo on a disk that is nobody's copy.
type onDisk struct {
	*Stage
	t *testing.T
}

func newOnDisk(t *testing.T) *onDisk {
	s := &onDisk{&Stage{Lab: single(t), Guests: []string{"n1"}, Client: "client", URL: "http://10.30.1.1/", Group: "g", Resource: "web", Mirror: true}, t}
	must(t, s.Scripts(t.Context(), "n1"))
	s.do("mkfs.ext3", "-q", "/dev/sda4")
	s.do("mount", "/dev/sda4", "/data")
	return s
}

func (s *onDisk) do(argv ...string) {
	s.t.Helper()
	_, err := s.Do(s.t.Context(), "n1", argv...)
	must(s.t, err)
}

// script runs start.sh or stop.sh, twice: what is done already is no error.
func (s *onDisk) script(name string) {
	s.t.Helper()
	s.do(etc + "/scripts/g/web/" + name)
	s.do(etc + "/scripts/g/web/" + name)
}

// write starts a client, until the end of the test at the latest.
func (s *onDisk) write(from *lab.Namespace) *Writing {
	s.t.Helper()
	w, err := s.Write(s.t.Context(), 4, from.DialContext)
	must(s.t, err)
	s.t.Cleanup(func() { w.Close() })
	return w
}

// acknowledged waits for so many further writes.
func (s *onDisk) acknowledged(w *Writing, n int) {
	s.t.Helper()
	soon, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	must(s.t, w.Await(soon, "n1", n))
}

// crash takes the power from the node, and mounts the disk at the next boot.
func (s *onDisk) crash() (at time.Time) {
	s.t.Helper()
	at = time.Now()
	must(s.t, s.Lab.Kill(s.t.Context(), "n1"))
	must(s.t, s.Lab.Boot(s.t.Context(), "n1"))
	s.do("mount", "/dev/sda4", "/data")
	return at
}

// It serves what is on the disk, and what it acknowledged outlives the power of
// its node.
func TestWritesOverAPowerCut(t *testing.T) {
	s := newOnDisk(t)
	from, err := s.Lab.Namespace(t.Context(), "client")
	must(t, err)
	s.script("start.sh")
	w := s.write(from)
	var cut time.Time
	const cuts = 2
	for range cuts {
		s.acknowledged(w, 50)
		cut = s.crash()
		s.script("start.sh")
	}
	s.acknowledged(w, 50)
	s.do("test", "-s", "/data/htdocs/index.html")
	p := &Prober{URL: s.URL, Dial: from.DialContext}
	asking, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	asked := make(chan error, 1)
	go func() { asked <- p.Run(asking) }()
	if node, err := p.Await(asking, 5); err != nil || node != "n1" {
		t.Error(node, err)
	}
	cancel()
	must(t, <-asked)
	got, err := w.Stop(t.Context(), cut)
	must(t, err)
	if got.Acknowledged < 50*(cuts+1) || got.Lost != 0 || got.OutageMS < 10 {
		t.Errorf("%+v", got)
	}
	t.Log(got.text())
	s.script("stop.sh")
	s.do("umount", "/data") // nobody has it open any more
}

// A disk that forgets what it was told to keep is found out.
func TestLostWritesAreSeen(t *testing.T) {
	s := newOnDisk(t)
	from, err := s.Lab.Namespace(t.Context(), "client")
	must(t, err)
	s.do("ln", "-s", "/run/forgetful", "/data/journal") // in memory
	s.do("sync")
	s.script("start.sh")
	w := s.write(from)
	s.acknowledged(w, 50)
	cut := s.crash()
	s.script("start.sh")
	s.acknowledged(w, 50)
	got, err := w.Stop(t.Context(), cut)
	must(t, err)
	if got.Lost < 50 || got.Acknowledged-got.Lost < 50 {
		t.Errorf("%+v", got)
	}
}
