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

// The business of the demo on a disk that is nobody's copy: it serves what is on
// the disk, and what it acknowledged outlives the power of its node.
func TestWritesOverAPowerCut(t *testing.T) {
	l := single(t)
	ctx := t.Context()
	s := &Stage{Lab: l, Guests: []string{"n1"}, Client: "client", URL: "http://10.30.1.1/", Group: "g", Resource: "web", Mirror: true}
	do := func(argv ...string) {
		t.Helper()
		_, err := s.Do(ctx, "n1", argv...)
		must(t, err)
	}
	must(t, s.Scripts(ctx, "n1"))
	do("mkfs.ext3", "-q", "/dev/sda4")
	from, err := l.Namespace(ctx, "client")
	must(t, err)
	var w *Writing
	var cut time.Time
	const cuts = 2
	for i := range cuts + 1 {
		do("mount", "/dev/sda4", "/data")
		do(etc + "/scripts/g/web/start.sh")
		do(etc + "/scripts/g/web/start.sh") // it runs already
		if w == nil {
			w, err = s.Write(ctx, 4, from.DialContext)
			must(t, err)
			t.Cleanup(w.stop)
		}
		soon, cancel := context.WithTimeout(ctx, 20*time.Second)
		must(t, w.Await(soon, "n1", 50))
		cancel()
		if i < cuts {
			cut = time.Now()
			must(t, l.Kill(ctx, "n1"))
			must(t, l.Boot(ctx, "n1"))
		}
	}
	do("test", "-s", "/data/htdocs/index.html")
	p := &Prober{URL: s.URL, Dial: from.DialContext}
	asking, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	go func() { p.Run(asking) }()
	if node, err := p.Await(asking, 5); err != nil || node != "n1" {
		t.Error(node, err)
	}
	got, err := w.Stop(ctx, cut)
	must(t, err)
	if got.Acknowledged < 50*(cuts+1) || got.Lost != 0 || got.OutageMS < 10 {
		t.Errorf("%+v", got)
	}
	t.Log(got.text())
	do(etc + "/scripts/g/web/stop.sh")
	do("umount", "/data") // nobody has it open any more
	do(etc + "/scripts/g/web/stop.sh")
}
