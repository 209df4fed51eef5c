package outlet

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

// collector stands in for one of OpenTelemetry.
type collector struct {
	*httptest.Server
	mu   sync.Mutex
	got  []*tracepb.TracesData
	head []http.Header
	says func(n int, w http.ResponseWriter) // of the n-th request, from 1
}

func newCollector(t *testing.T, says func(n int, w http.ResponseWriter)) *collector {
	c := &collector{says: says}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		d := &tracepb.TracesData{}
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, d) != nil {
			t.Errorf("%s %v: no traces", r.URL, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.got, c.head = append(c.got, d), append(c.head, r.Header)
		if c.says != nil {
			c.says(len(c.got), w)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) traces() []*tracepb.TracesData {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// tree writes the spans of a trace as lines: where they hang, whose they are, from
// when to when in milliseconds after the root began, and what is said about them.
func tree(d *tracepb.TracesData) (lines []string) {
	type span struct {
		*tracepb.Span
		node string
	}
	var all []span
	for _, r := range d.ResourceSpans {
		node := ""
		for _, a := range r.Resource.Attributes {
			if a.Key == "service.instance.id" {
				node = a.Value.GetStringValue()
			}
		}
		for _, s := range r.ScopeSpans {
			for _, x := range s.Spans {
				all = append(all, span{x, node})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b span) int { return int(int64(a.StartTimeUnixNano) - int64(b.StartTimeUnixNano)) })
	root := slices.IndexFunc(all, func(s span) bool { return s.ParentSpanId == nil })
	if root < 0 {
		return []string{"no root"}
	}
	var under func(indent string, parent []byte)
	under = func(indent string, parent []byte) {
		for _, s := range all {
			if string(s.ParentSpanId) != string(parent) {
				continue
			}
			ms := func(at uint64) int64 { return (int64(at) - int64(all[root].StartTimeUnixNano)) / 1e6 }
			line := fmt.Sprintf("%s%s (%s) %d-%d", indent, s.Name, s.node, ms(s.StartTimeUnixNano), ms(s.EndTimeUnixNano))
			if s.Status != nil {
				line += " " + s.Status.Message
			}
			lines = append(lines, line)
			under(indent+"  ", s.SpanId)
		}
	}
	under("", nil)
	return lines
}

// story is what two nodes write of a failover from b to a, which began at a time.
func story(at time.Time) []api.Event {
	event := func(id string, ms int, code, cause string, fields ...string) api.Event {
		node, _, _ := journal.ParseID(cluster.EventID(id))
		e := api.Event{ID: cluster.EventID(id), Node: node, Time: at.Add(time.Duration(ms) * time.Millisecond), Level: cluster.LevelInfo, Code: code,
			Cause: cluster.EventID(cause), Text: code + " " + id, Fields: map[string]string{"group": "web"}}
		for i := 0; i < len(fields); i += 2 {
			e.Fields[fields[i]] = fields[i+1]
		}
		return e
	}
	plan := func(id string, ms int, code, entry string) api.Event {
		return event(id, ms, code, "b/2", "plan", "p7", "action", "failover", "why", "www has failed", "entry", "1/b/"+entry)
	}
	other := event("a/9", 40, "group-start-begun", "", "plan", "p7", "action", "start", "entry", "2/a/9") // of another life
	return []api.Event{
		event("b/1", 0, "monitor-bad", ""),
		event("b/2", 30, "resource-failed", "b/1", "resource", "www"),
		plan("b/3", 50, "group-stop-begun", "20"),
		event("b/4", 120, "resource-stopped", "b/2", "resource", "www", "took_ms", "66"),
		event("b/5", 121, "resource-stopped", "b/2", "resource", "vip", "took_ms", "1"),
		plan("b/6", 125, "group-stop-done", "21"),
		event("b/7", 126, "resource-stopped", "", "group", "db", "resource", "sql", "took_ms", "9"),
		other,
		plan("a/10", 52, "group-failover-begun", "20"),
		plan("a/11", 130, "group-start-begun", "21"),
		event("a/12", 141, "resource-not-started", "b/2", "resource", "vip", "took_ms", "10"),
		event("a/13", 150, "resource-started", "b/2", "resource", "vip", "took_ms", "3"),
		event("a/14", 180, "resource-started", "b/2", "resource", "www", "took_ms", "20"),
		plan("a/15", 185, "group-start-done", "22"),
		plan("a/16", 186, "group-failover-done", "22"),
	}
}

// write gives the events to the node, its own ones and those of another one.
func (n *node) write(events []api.Event) {
	n.t.Helper()
	for _, e := range events {
		if e.Node != "a" {
			n.journal.Merge([]api.Event{e})
		} else if err := n.journal.Append(e); err != nil {
			n.t.Fatal(err)
		}
	}
}

func TestTrace(t *testing.T) {
	c := newCollector(t, func(n int, w http.ResponseWriter) {
		if n == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	key := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(key, []byte("# of the collector\nAuthorization: Bearer x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := start(t, t.TempDir(), nil)
	f := with(t, fmt.Sprintf("{traces: {kind: otlp, url: %q, headers_file: %q, timeout: 1s}}", c.URL, key))
	n.follow(f)
	n.write(story(time.Now()))
	until(t, "the trace came twice", func() bool { return len(c.traces()) == 2 })
	want := []string{
		"failover web (a) 0-186",
		"  detect (b) 0-30",
		"  decide (b) 30-50",
		"  stop on b (b) 50-125",
		"    stop www (b) 54-120",
		"    stop vip (b) 120-121",
		"  start on a (a) 130-185",
		"    start vip (a) 131-141 resource-not-started a/12",
		"    start vip (a) 147-150",
		"    start www (a) 160-180",
	}
	for _, d := range c.traces() {
		if diff := cmp.Diff(want, tree(d)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
	if all := c.traces(); !proto.Equal(all[0], all[1]) {
		t.Error("what comes again is not the same")
	}
	if a := attributes(c.traces()[1], "start www"); a["tasuki.node"] != "a" || a["tasuki.group"] != "web" || a["tasuki.resource"] != "www" || a["tasuki.cause"] != "b/2" || a["tasuki.event"] != "a/14" {
		t.Error(a)
	}
	if c.head[1].Get("Authorization") != "Bearer x" {
		t.Error(c.head[1])
	}
	// Else it would come again.
	until(t, "it is known that it came", func() bool { return n.outlets.States()[0].Delivered == 1 })
	n.restart(f) // and nothing else was sent: it is not tried for events that end no plan
	n.write([]api.Event{{ID: "a/20", Node: "a", Time: time.Now(), Level: cluster.LevelInfo, Code: "x", Text: "x"}})
	until(t, "all was passed", func() bool { return n.outlets.States()[0].Waiting == 0 })
	if s := n.outlets.States()[0]; len(c.traces()) != 2 || s.Delivered != 1 || s.Missed != 0 {
		t.Errorf("%d traces, %+v", len(c.traces()), s)
	}
}

func attributes(d *tracepb.TracesData, name string) map[string]string {
	out := map[string]string{}
	for _, r := range d.ResourceSpans {
		for _, s := range r.ScopeSpans {
			for _, x := range s.Spans {
				if x.Name != name {
					continue
				}
				for _, a := range x.Attributes {
					out[a.Key] = a.Value.GetStringValue()
				}
			}
		}
	}
	return out
}

// A node that died told of no end: what it did lasts as long as the plan.
func TestTraceOfATakeover(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	last := api.Event{ID: "a/9", Node: "a", Time: at.Add(1100 * time.Millisecond), Code: "group-failover-done", Cause: "a/1",
		Fields: map[string]string{"group": "web", "plan": "p2", "action": "takeover", "entry": "2/a/18", "why": "b is down"}}
	silent := api.Event{ID: "a/1", Node: "a", Time: at.Add(time.Second), Code: "node-silent", Fields: map[string]string{"node": "b", "silent_ms": "1000"}}
	begun := last
	begun.ID, begun.Time, begun.Code = "a/2", at.Add(1001*time.Millisecond), "group-start-begun"
	want := []string{"takeover web (a) 0-1100", "  detect (a) 0-1000", "  decide (a) 1000-1001", "  start on a (a) 1001-1100"}
	if diff := cmp.Diff(want, tree(traceOf("c", &last, []api.Event{silent}, []api.Event{begun, last}))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	other, lame := begun, last
	lame.Code, lame.Text = "group-start-failed", "Activating group web has failed: no."
	want = []string{"takeover web (a) 0-99 " + lame.Text, "  start on a (a) 0-99 " + lame.Text}
	if diff := cmp.Diff(want, tree(traceOf("c", &lame, nil, []api.Event{begun, lame}))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	lost := last
	lost.Code, lost.Text = "group-lost", "Activating group web on b has ended: it died."
	other.Node, other.ID = "b", "b/5"
	want = []string{"takeover web (a) 0-99 " + lost.Text, "  start on b (b) 0-99 how it ended is not known"}
	if diff := cmp.Diff(want, tree(traceOf("c", &lost, nil, []api.Event{other, lost}))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A collector that hangs, or refuses, holds up nobody and is told of.
func TestTraceRefused(t *testing.T) {
	part := protowire.AppendString(protowire.AppendTag(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 3), 2, protowire.BytesType), "too old")
	answer := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), part)
	c := newCollector(t, func(_ int, w http.ResponseWriter) { _, _ = w.Write(answer) })
	n := start(t, t.TempDir(), nil)
	n.follow(with(t, fmt.Sprintf("{traces: {kind: otlp, url: %q, timeout: 100ms}}", c.URL)))
	n.write(story(time.Now()))
	var told []api.Event
	until(t, "it is told", func() bool {
		told = n.journal.Query(journal.Filter{Code: "outlet-refused"})
		return len(told) > 0 && n.outlets.States()[0].Missed == 1
	})
	if len(c.traces()) != refuseTrys || len(told) != 1 || !strings.Contains(told[0].Text, "too old") {
		t.Errorf("%d times, %v", len(c.traces()), told)
	}
}

func TestHeaders(t *testing.T) {
	file := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(file, []byte("A: b\nthe key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := readHeaders(file, http.Header{})
	if err == nil || !strings.Contains(err.Error(), "line 2") || strings.Contains(err.Error(), "the key") {
		t.Error(err)
	}
}
