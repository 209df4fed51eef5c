package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/examples"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// service is an HTTP service without a network: dial decides what happens.
type service struct {
	mu   sync.Mutex
	node string
	mode string // "": answers, "refuse", "hang", "slow", "broken"
}

func (s *service) set(mode, node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode, s.node = mode, node
}

func (s *service) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	s.mu.Lock()
	node, mode := s.node, s.mode
	s.mu.Unlock()
	switch mode {
	case "refuse":
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		if _, err := http.ReadRequest(bufio.NewReader(theirs)); err != nil {
			return
		}
		status := "200 OK"
		switch mode {
		case "broken":
			status = "503 Service Unavailable"
		case "slow":
			wait(100 * time.Millisecond)
		}
		fmt.Fprintf(theirs, "HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n", status, len(node)+1, node)
	}()
	return ours, nil
}

// probe runs a client against a story in a bubble with its own clock.
func probe(t *testing.T, story func(t *testing.T, s *service, p *Prober)) (samples []Sample, late int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &service{node: "CLP-1"}
		p := &Prober{URL: "http://10.2.102.50/", Dial: s.dial}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		story(t, s, p)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		samples, late = p.Samples(), p.Late()
	})
	return samples, late
}

func wait(d time.Duration) { <-time.After(d) }

func TestProberSeesAnOutage(t *testing.T) {
	for _, mode := range []string{"refuse", "hang", "broken"} {
		var pulled time.Time
		samples, late := probe(t, func(_ *testing.T, s *service, _ *Prober) {
			wait(501 * time.Millisecond)
			pulled = time.Now()
			s.set(mode, "CLP-1")
			wait(700 * time.Millisecond)
			s.set("", "CLP-2")
			wait(500 * time.Millisecond)
		})
		o, found := longest(samples, pulled)
		if !found || o.Before != "CLP-1" || o.After != "CLP-2" || o.Failed < 90 || o.Sent-o.Failed > 1 || late != 0 {
			t.Errorf("%s: %+v, late %d", mode, o, late)
		}
		if d := o.Length(); d < 700*time.Millisecond || d > 710*time.Millisecond {
			t.Errorf("%s: an outage of 700 ms was measured as %v", mode, d)
		}
		if more := others(samples, pulled, o); len(more) != 0 {
			t.Errorf("%s: %+v", mode, more)
		}
	}
}

func TestProberAsksAtItsRate(t *testing.T) {
	samples, _ := probe(t, func(_ *testing.T, s *service, _ *Prober) {
		s.set("slow", "CLP-1") // slower than the interval, which must not matter
		wait(999 * time.Millisecond)
	})
	if len(samples) != 200 {
		t.Errorf("%d requests in a second", len(samples))
	}
	for i, s := range samples {
		if !s.OK() || s.Done.Sub(s.Sent) != 100*time.Millisecond || s.Sent.Sub(samples[0].Sent) != time.Duration(i)*Every {
			t.Fatalf("%d: %+v", i, s)
		}
	}
}

func TestProberSaysWhy(t *testing.T) {
	samples, _ := probe(t, func(_ *testing.T, s *service, _ *Prober) {
		for _, mode := range []string{"refuse", "hang", "broken"} {
			s.set(mode, "CLP-1")
			wait(50 * time.Millisecond)
		}
		s.set("", "")
		wait(50 * time.Millisecond)
	})
	why := map[string]bool{}
	for _, s := range samples {
		why[s.Why] = true
	}
	for _, w := range []string{"connection refused", "no answer in time", "503 Service Unavailable", "an empty answer"} {
		if !why[w] {
			t.Errorf("no request failed by %q: %v", w, why)
		}
	}
}

func TestAwait(t *testing.T) {
	probe(t, func(t *testing.T, s *service, p *Prober) {
		if node, err := p.Await(t.Context(), 20); err != nil || node != "CLP-1" {
			t.Error(node, err)
		}
		s.set("refuse", "CLP-1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if node, err := p.Await(ctx, 1); err == nil {
			t.Error("steady without answers: " + node)
		}
	})
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

// steadySamples are answers of node in 1 ms, every 5 ms from a to before b.
func steadySamples(node string, a, b int) (out []Sample) {
	for ; a < b; a += 5 {
		s := Sample{Sent: at(a), Done: at(a + 1), Node: node}
		if node == "" {
			s.Done, s.Why = at(a+250), "no answer in time"
		}
		out = append(out, s)
	}
	return out
}

func join(lists ...[]Sample) (out []Sample) {
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func TestOutageIsFromTheLastSendingToTheFirstAnswer(t *testing.T) {
	s := join(steadySamples("A", 0, 100), steadySamples("", 100, 400), steadySamples("B", 400, 500))
	o, found := longest(s, at(97))
	if !found || o.From != at(95) || o.To != at(401) || o.Before != "A" || o.After != "B" || o.Failed != 60 || o.Sent != 61 {
		t.Errorf("%+v", o)
	}
	// A request that hung and was answered late is no service in between.
	s = join(steadySamples("A", 0, 100), []Sample{{Sent: at(100), Done: at(900), Node: "B"}}, steadySamples("", 105, 950), steadySamples("B", 950, 999))
	if o, _ := longest(s, at(97)); o.From != at(95) || o.To != at(900) || o.After != "B" {
		t.Errorf("%+v", o)
	}
	// An old answer that arrives late does not move the begin backwards.
	s = join([]Sample{{Sent: at(0), Done: at(100), Node: "A"}}, steadySamples("A", 5, 100), steadySamples("B", 200, 300))
	if o, _ := longest(s, at(97)); o.From != at(95) {
		t.Errorf("%+v", o)
	}
	// An outage before the pull is none of ours.
	s = join(steadySamples("A", 0, 100), steadySamples("", 100, 800), steadySamples("A", 800, 900), steadySamples("B", 1000, 1100))
	if o, _ := longest(s, at(890)); o.From != at(895) || o.To != at(1001) {
		t.Errorf("%+v", o)
	}
	// A second outage is told.
	s = join(steadySamples("A", 0, 100), steadySamples("B", 300, 400), steadySamples("", 400, 500), steadySamples("B", 500, 600))
	o, _ = longest(s, at(97))
	if more := others(s, at(97), o); len(more) != 1 || more[0].From != at(395) {
		t.Errorf("%+v", more)
	}
	if _, found := longest(steadySamples("", 0, 100), at(50)); found {
		t.Error("nobody ever answered, so there is no end")
	}
}

var cast = Cast{Host: "oslo", NIC: "ens1", Group: "shop", Active: "shop-a", Standby: "shop-b"}

func story() []api.Event {
	line := func(ms int, node, module, code, text string, fields ...string) api.Event {
		e := api.Event{Time: at(ms), Node: cluster.NodeName(node), Module: module, Code: code, Text: text, Fields: map[string]string{}}
		for i := 0; i < len(fields); i += 2 {
			e.Fields[fields[i]] = fields[i+1]
		}
		return e
	}
	return []api.Event{
		line(50, "shop-a", "rc", "group-stop-begun", "Stopping group shop has started."), // an older one
		line(110, "oslo", "rm", "monitor-bad", "Detected an error in monitoring office-cable. (20 : NIC ens1 link was down.)"),
		line(112, "oslo", "logcmd", "log", "Send Failover Request to shop-a"),
		line(120, "shop-b", "logcmd", "log", "Receive Failover Request from ESX"),
		line(121, "shop-a", "logcmd", "log", "Receive Failover Request from ESX"),
		line(130, "shop-a", "apisv", "request-move", "There was a request to move group(shop) from the clpgrp command(IP=::ffff:100.64.9.11)."),
		line(135, "shop-a", "rc", "group-stop-begun", "Stopping group shop has started."),
		line(135, "shop-b", "rc", "group-move-begun", "Moving group shop has started."),
		line(240, "shop-a", "rs", "resource-stopped", "Resource web has been stopped (100 ms).", "resource", "web", "took_ms", "100"),
		line(242, "shop-a", "rs", "resource-stopped", "Resource ip has been stopped (2 ms).", "resource", "ip", "took_ms", "2"),
		line(243, "shop-a", "rc", "group-stop-done", "Stopping group shop has completed."),
		line(250, "shop-b", "rc", "group-start-begun", "Activating group shop has started."),
		line(255, "shop-b", "rs", "resource-started", "Resource ip has been started (4 ms).", "resource", "ip", "took_ms", "4"),
		line(405, "shop-b", "rs", "resource-started", "Resource web has been started (150 ms).", "resource", "web", "took_ms", "150"),
		line(407, "shop-b", "rc", "group-start-done", "Activating group shop has completed."),
		line(407, "shop-b", "rc", "group-move-done", "Moving group shop has completed."),
	}
}

func TestReport(t *testing.T) {
	samples := join(steadySamples("shop-a", 0, 100), steadySamples("", 100, 360), steadySamples("shop-b", 360, 500))
	r, err := NewReport(cast, at(100), samples, story(), []string{"web"})
	if err != nil {
		t.Fatal(err)
	}
	if r.OutageMS != 266 || r.Before != "shop-a" || r.After != "shop-b" || r.Others != 0 {
		t.Errorf("%+v", r)
	}
	// The start script ran on after the first answer: only what is in the outage counts.
	if want := 266.0 - 100 - 106; r.OwnMS != want {
		t.Errorf("own_ms is %v, not %v", r.OwnMS, want)
	}
	sum, own := 0.0, 0.0
	for _, p := range r.Parts {
		sum += p.MS
		if p.Own {
			own += p.MS
		}
	}
	if math.Abs(sum-r.OutageMS) > 0.01 || math.Abs(own-r.OwnMS) > 0.01 {
		t.Errorf("parts do not add up: %v of %v, own %v of %v: %+v", sum, r.OutageMS, own, r.OwnMS, r.Parts)
	}
	want := []float64{5, 10, 20, 5, 100, 106, 20, 0}
	for i, p := range r.Parts {
		if p.MS != want[i] {
			t.Errorf("%s: %v, not %v", p.Name, p.MS, want[i])
		}
	}
	for _, l := range r.Lines {
		if l.Missing() {
			t.Errorf("not found: %+v", l)
		}
	}
	if l := r.Lines[5]; *l.AfterMS != 35 || l.Original != "21:18:19" {
		t.Errorf("an event from before the pull is taken: %+v", l)
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"21:18:42", "307.0 ms", "Moving group shop has completed.", "266.0 ms", "60.0 ms"} {
		if !strings.Contains(b.String(), w) {
			t.Errorf("no %q in\n%s", w, b.String())
		}
	}
}

func TestReportOfAFailure(t *testing.T) {
	samples := join(steadySamples("shop-a", 0, 100), steadySamples("", 100, 360), steadySamples("shop-b", 360, 500))
	r, err := NewReport(cast, at(100), samples, story()[:4], []string{"web"})
	if err != nil {
		t.Fatal(err)
	}
	missing := 0
	for _, l := range r.Lines {
		if l.Missing() {
			missing++
		}
	}
	if missing != 8 || r.OwnMS != r.OutageMS {
		t.Errorf("%d missing: %+v", missing, r)
	}
	if err := r.Write(io.Discard); err != nil {
		t.Error(err)
	}
	if _, err := NewReport(cast, at(100), steadySamples("shop-a", 0, 500), nil, nil); err == nil {
		t.Error("the service did not move, and yet there is a report")
	}
	if _, err := NewReport(cast, at(100), steadySamples("", 0, 500), nil, nil); err == nil {
		t.Error("nobody answered, and yet there is a report")
	}
}

func TestOriginalMatchesItself(t *testing.T) {
	c := Cast{Host: host, NIC: "vmnic1", Group: "failover", Active: active, Standby: standby}
	var events []api.Event
	for i, o := range original {
		events = append(events, api.Event{Time: at(i), Node: cluster.NodeName(o.node), Module: o.module, Text: o.text})
	}
	for i, l := range compare(c, at(0), events) {
		if l.Missing() || *l.AfterMS != float64(i) || l.Text != original[i].text {
			t.Errorf("%+v", l)
		}
	}
}

// The numbers of the writes are at the top of the demo's JSON where there is a
// mirror disk, also if they are 0, and nowhere else.
func TestWritesInJSON(t *testing.T) {
	r := func(w *Writes) *Report { return &Report{OutageMS: 10, Writes: w} }
	for name, c := range map[string]struct {
		reports []*Report
		want    string
	}{
		"no mirror disk": {[]*Report{r(nil), r(nil)}, ""},
		"one run":        {[]*Report{r(&Writes{Acknowledged: 7, OutageMS: 3})}, `"writes_acknowledged":7,"writes_lost":0,"writes_twice":0,"write_outage_ms":3`},
		"two runs":       {[]*Report{r(&Writes{7, 1, 2, 30}), r(&Writes{5, 0, 0, 20})}, `"writes_acknowledged":12,"writes_lost":1,"writes_twice":2,"write_outage_ms":30`},
	} {
		sum, err := Summarize(c.reports)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(sum)
		if err != nil {
			t.Fatal(err)
		}
		if has := strings.Contains(string(data), "writes_"); !strings.Contains(string(data), c.want) || has != (c.want != "") {
			t.Errorf("%s: %s", name, data)
		}
	}
}

func TestHasMirror(t *testing.T) {
	for name, want := range map[string]bool{"vmcluster.yaml": true, "minimal.yaml": false} {
		file, err := examples.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if has, err := hasMirror(name, file); has != want || err != nil {
			t.Errorf("%s: %v, %v", name, has, err)
		}
	}
	if _, err := hasMirror("bad.yaml", []byte("cluster: [")); err == nil {
		t.Error("nonsense is read")
	}
}
