package outlet

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strconv"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/engine"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

// ends says whether an event is the last word about a plan, and whether that was a
// success.
func ends(e *api.Event) (ends, well bool) {
	if e.Fields["plan"] == "" || e.Fields["group"] == "" {
		return false, false
	}
	switch e.Code {
	case "group-move-done", "group-failover-done", "group-restart-done":
		return true, true
	case "group-start-done":
		return e.Fields["action"] == "start", true
	case "group-stop-done":
		return e.Fields["action"] == "stop", true
	case "group-start-failed", "group-stop-failed", "group-lost", "group-not-given":
		return true, false
	}
	return false, false
}

// trace is what is made of a plan: a root, what led to it, and what each node did.
// The same plan is always the same trace with the same spans, so that one that comes
// again is no second one.
type trace struct {
	cluster cluster.Name
	last    *api.Event // with which the plan ended
	id      []byte
	root    *tracepb.Span
	spans   map[cluster.NodeName][]*tracepb.Span
}

// traceOf makes a trace of a plan by its last event, what led to that in order, and
// the other events of its group.
func traceOf(c cluster.Name, last *api.Event, causes, events []api.Event) *tracepb.TracesData {
	t := &trace{cluster: c, last: last, spans: map[cluster.NodeName][]*tracepb.Span{}}
	sum := sha256.Sum256([]byte("trace\x00" + string(c) + "\x00" + string(last.ID)))
	t.id = sum[:16]
	steps := t.ofPlan(events)
	begun := last.Time
	for _, e := range steps {
		if e.Time.Before(begun) {
			begun = e.Time
		}
	}
	t.root = t.span(last, "plan", nil, last.Fields["action"]+" "+last.Fields["group"], begun, last.Time)
	t.root.Attributes = append(t.root.Attributes, text("tasuki.plan", last.Fields["plan"]), text("tasuki.action", last.Fields["action"]), text("tasuki.why", last.Fields["why"]))
	if _, well := ends(last); !well {
		failed(t.root, last)
	}
	t.before(causes, steps, begun)
	for i := range steps {
		t.phase(&steps[i], events)
	}
	for _, spans := range t.spans { // clocks of nodes differ
		for _, s := range spans {
			t.root.StartTimeUnixNano = min(t.root.StartTimeUnixNano, s.StartTimeUnixNano)
			t.root.EndTimeUnixNano = max(t.root.EndTimeUnixNano, s.EndTimeUnixNano)
		}
	}
	return t.data()
}

// ofPlan returns the events in which the plan is named, in the order of time.
func (t *trace) ofPlan(events []api.Event) []api.Event {
	steps := slices.DeleteFunc(slices.Clone(events), func(e api.Event) bool {
		return e.Fields["plan"] != t.last.Fields["plan"] || e.Fields["group"] != t.last.Fields["group"] || lifeOf(&e) != lifeOf(t.last)
	})
	slices.SortStableFunc(steps, func(a, b api.Event) int { return a.Time.Compare(b.Time) })
	return steps
}

// lifeOf returns in which life of consensus an event was agreed on: another one
// numbers its plans anew.
func lifeOf(e *api.Event) string {
	ref := e.Fields[engine.FieldEntry]
	return ref[:max(strings.LastIndexByte(ref, '/'), 0)]
}

// before makes the spans of what came before the first step: how it was found out
// that something must be done, and how long it took to decide what.
func (t *trace) before(causes, steps []api.Event, begun time.Time) {
	if len(causes) == 0 {
		return
	}
	first, latest := &causes[0], &causes[len(causes)-1]
	since := first.Time
	for i := range causes {
		if ms, err := strconv.Atoi(causes[i].Fields[engine.FieldSilent]); err == nil {
			since = earlier(since, causes[i].Time.Add(-time.Duration(ms)*time.Millisecond))
		}
	}
	if since.Before(latest.Time) {
		t.add(latest.Node, t.span(latest, "detect", t.root, "detect", since, latest.Time))
	}
	by := t.last
	if len(steps) > 0 {
		by = &steps[0]
	}
	decide := t.span(by, "decide", t.root, "decide", earlier(latest.Time, begun), begun)
	decide.Attributes = append(decide.Attributes, text("tasuki.why", t.last.Fields["why"]))
	t.add(by.Node, decide)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// phases are how what a node does with a group as a whole begins and ends, and the
// steps of resources in between.
var phases = map[string]struct {
	name        string
	ends        []string
	steps, lame []string
}{
	"group-stop-begun":  {"stop", []string{"group-stop-done", "group-stop-failed"}, []string{"resource-stopped", "resource-forced"}, []string{"resource-not-stopped", "resource-not-forced"}},
	"group-start-begun": {"start", []string{"group-start-done", "group-start-failed", "group-lost"}, []string{"resource-started"}, []string{"resource-not-started"}},
}

// phase makes the spans of what a node did between two of its events. Where it did
// not tell of the end, it lasts as long as the plan.
func (t *trace) phase(begun *api.Event, events []api.Event) {
	p, known := phases[begun.Code]
	if !known {
		return
	}
	group, from := begun.Fields["group"], number(begun)
	own := slices.DeleteFunc(slices.Clone(events), func(e api.Event) bool {
		return e.Node != begun.Node || e.Fields["group"] != group || number(&e) <= from
	})
	slices.SortFunc(own, func(a, b api.Event) int { return cmp.Compare(number(&a), number(&b)) })
	at := slices.IndexFunc(own, func(e api.Event) bool {
		return e.Fields["plan"] == begun.Fields["plan"] && (slices.Contains(p.ends, e.Code) || e.ID == t.last.ID)
	})
	end := t.last.Time
	if at >= 0 {
		end = own[at].Time
	}
	whole := t.span(begun, p.name, t.root, p.name+" on "+string(begun.Node), begun.Time, end)
	switch {
	case at < 0:
		whole.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "how it ended is not known"}
		at = len(own)
	case strings.HasSuffix(own[at].Code, "-failed"):
		failed(whole, &own[at])
	}
	t.add(begun.Node, whole)
	for i := range own[:at] {
		e := &own[i]
		lame := slices.Contains(p.lame, e.Code)
		if !lame && !slices.Contains(p.steps, e.Code) {
			continue
		}
		ms, _ := strconv.Atoi(e.Fields["took_ms"])
		s := t.span(e, "step", whole, p.name+" "+e.Fields["resource"], e.Time.Add(-time.Duration(ms)*time.Millisecond), e.Time)
		if lame {
			failed(s, e)
		}
		t.add(begun.Node, s)
	}
}

func number(e *api.Event) uint64 {
	_, n, _ := journal.ParseID(e.ID)
	return n
}

func failed(s *tracepb.Span, e *api.Event) {
	s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: e.Text}
}

// span makes a span that an event tells of.
func (t *trace) span(e *api.Event, what string, under *tracepb.Span, name string, from, to time.Time) *tracepb.Span {
	sum := sha256.Sum256([]byte(string(t.id) + what + "\x00" + string(e.ID)))
	s := &tracepb.Span{
		TraceId: t.id, SpanId: sum[:8], Name: name, Kind: tracepb.Span_SPAN_KIND_INTERNAL,
		StartTimeUnixNano: uint64(from.UnixNano()), EndTimeUnixNano: uint64(max(to.UnixNano(), from.UnixNano())),
		Attributes: []*commonpb.KeyValue{text("tasuki.event", string(e.ID)), text("tasuki.node", string(e.Node)), text("tasuki.group", t.last.Fields["group"])},
	}
	if under != nil {
		s.ParentSpanId = under.SpanId
	}
	if r := e.Fields["resource"]; r != "" {
		s.Attributes = append(s.Attributes, text("tasuki.resource", r))
	}
	if e.Cause != "" {
		s.Attributes = append(s.Attributes, text("tasuki.cause", string(e.Cause)))
	}
	return s
}

func (t *trace) add(n cluster.NodeName, s *tracepb.Span) { t.spans[n] = append(t.spans[n], s) }

// data puts the spans of each node together.
func (t *trace) data() *tracepb.TracesData {
	t.spans[t.last.Node] = append([]*tracepb.Span{t.root}, t.spans[t.last.Node]...)
	var nodes []cluster.NodeName
	for n := range t.spans {
		nodes = append(nodes, n)
	}
	slices.Sort(nodes)
	d := &tracepb.TracesData{}
	for _, n := range nodes {
		d.ResourceSpans = append(d.ResourceSpans, &tracepb.ResourceSpans{
			Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
				text("service.name", "tasuki"), text("service.namespace", string(t.cluster)), text("service.instance.id", string(n)),
			}},
			ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "tasuki"}, Spans: t.spans[n]}},
		})
	}
	return d
}

func text(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}
