package lab_test

import (
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tasuki-ha/tasuki/internal/lab/demo"
)

// collects stands in for a collector on a machine; what it gets arrives in the
// channel.
func collects(t *testing.T, s *demo.Stage, machine string) <-chan *tracepb.TracesData {
	t.Helper()
	var l net.Listener
	must(t, s.Lab.Do(t.Context(), machine, func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:4318")
		return err
	}))
	got := make(chan *tracepb.TracesData, 100)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		d := &tracepb.TracesData{}
		if err != nil || proto.Unmarshal(body, d) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		got <- d
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return got
}

// spansOf returns the names of spans, and how long each took.
func spansOf(d *tracepb.TracesData) map[string]time.Duration {
	out := map[string]time.Duration{}
	for _, r := range d.ResourceSpans {
		for _, sc := range r.ScopeSpans {
			for _, x := range sc.Spans {
				out[x.Name] = time.Duration(x.EndTimeUnixNano - x.StartTimeUnixNano)
			}
		}
	}
	return out
}

// traced waits for the trace of that name, and for these spans in it.
func traced(t *testing.T, from <-chan *tracepb.TracesData, root string, spans ...string) map[string]time.Duration {
	t.Helper()
	end := time.After(20 * time.Second)
	for {
		select {
		case d := <-from:
			all := spansOf(d)
			if _, is := all[root]; !is {
				continue
			}
			for _, name := range spans {
				if _, is := all[name]; !is {
					t.Errorf("%s has no span %q: %v", root, name, all)
				}
			}
			return all
		case <-end:
			t.Fatalf("no trace of %s", root)
		}
	}
}

// A move and a takeover are traces at the collectors of the nodes.
func TestTraces(t *testing.T) {
	s := built(t, "witness", witnessFile+"outlets: {traces: {kind: otlp, url: \"http://127.0.0.1:4318\"}}\n", "n1", "n2", "w")
	first := string(s.Active(t.Context(), "n1"))
	other := map[string]string{"n1": "n2", "n2": "n1"}[first]
	at := map[string]<-chan *tracepb.TracesData{first: collects(t, s, first), other: collects(t, s, other)}
	do(t, s, first, "tasuki", "group", "move", "g", "--to", other)
	traced(t, at[other], "move g", "decide", "stop on "+first, "stop web", "start on "+other, "start web")
	must(t, s.Lab.Kill(t.Context(), other))
	all := traced(t, at[first], "takeover g", "detect", "decide", "start on "+first, "start web")
	if took := all["detect"]; took < 700*time.Millisecond || took > 5*time.Second {
		t.Errorf("the death of %s was detected in %s", other, took)
	}
	if !slices.ContainsFunc([]string{"start on " + first, "start web"}, func(n string) bool { return all[n] > 0 }) {
		t.Error(all)
	}
}
