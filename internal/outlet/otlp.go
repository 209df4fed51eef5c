package outlet

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

// gathers is how long after the end of a plan its trace is sent: what other nodes
// wrote of it must have come.
const gathers = 2 * time.Second

// mostOfGroup bounds the events of a group in which those of a plan are looked for.
const mostOfGroup = 2000

// otlp sends a trace of each plan that ends here to a collector of OpenTelemetry.
type otlp struct {
	sure
	poster
	c       config.Outlet
	journal Journal
}

// wants implements chooser.
func (o *otlp) wants(e *api.Event) bool {
	last, _ := ends(e)
	return last
}

// deliver implements sink.
func (o *otlp) deliver(ctx context.Context, d *Delivery) error {
	wait := min(gathers, o.c.Timeout/2)
	if left := time.Until(d.Event.Time.Add(wait)); left > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(left, wait)):
		}
	}
	body, err := proto.Marshal(o.trace(d))
	if err != nil {
		return fmt.Errorf("write the trace of %s: %w", d.Event.ID, err)
	}
	req, err := o.request(ctx, body)
	if err != nil {
		return err
	}
	answer, err := o.post(req, o.c.OTLP.CA, "the trace", "the collector")
	if err != nil {
		return err
	}
	if n, why := rejected(answer); n > 0 {
		return fmt.Errorf("%w: the collector has rejected %d spans: %.200q", errRefused, n, why)
	}
	return nil
}

// trace makes the trace of the plan that ended with the event.
func (o *otlp) trace(d *Delivery) proto.Message {
	e := &d.Event
	events := o.journal.Query(journal.Filter{Group: cluster.GroupName(e.Fields["group"]), Newest: true, Limit: mostOfGroup})
	byID := map[cluster.EventID]api.Event{}
	for _, x := range o.journal.Chain(e.ID) {
		byID[x.ID] = x
	}
	var causes []api.Event
	for id := e.Cause; id != ""; {
		x, held := byID[id]
		if !held || len(causes) > len(byID) {
			break
		}
		causes = append(causes, x)
		id = x.Cause
	}
	slices.Reverse(causes)
	return traceOf(d.Cluster, e, causes, events)
}

func (o *otlp) request(ctx context.Context, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.c.OTLP.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("post the trace: %w", err)
	}
	if o.c.OTLP.HeadersFile != "" {
		if err := readHeaders(o.c.OTLP.HeadersFile, req.Header); err != nil { // each time, so that they can be changed
			return nil, err
		}
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "tasuki")
	return req, nil
}

// readHeaders reads lines of NAME: VALUE.
func readHeaders(path string, into http.Header) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the headers: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, is := strings.Cut(line, ":")
		if !is || strings.TrimSpace(name) == "" { // not the line itself: it may hold a key
			return fmt.Errorf("line %d of %s is not NAME: VALUE", n, path)
		}
		into.Set(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return lines.Err()
}

// rejected reads of an ExportTraceServiceResponse how many spans were not taken:
// partial_success is its field 1, with rejected_spans 1 and error_message 2.
func rejected(answer []byte) (spans uint64, why string) {
	fields(answer, func(n protowire.Number, v []byte, _ uint64) {
		if n != 1 {
			return
		}
		fields(v, func(n protowire.Number, v []byte, x uint64) {
			switch n {
			case 1:
				spans = x
			case 2:
				why = string(v)
			}
		})
	})
	return spans, why
}

// fields passes on the fields of a message that are of bytes or a number, as far as
// it is one.
func fields(data []byte, do func(n protowire.Number, v []byte, x uint64)) {
	for len(data) > 0 {
		n, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return
		}
		data = data[size:]
		var v []byte
		var x uint64
		switch kind {
		case protowire.BytesType:
			v, size = protowire.ConsumeBytes(data)
		case protowire.VarintType:
			x, size = protowire.ConsumeVarint(data)
		default:
			size = protowire.ConsumeFieldValue(n, kind, data)
		}
		if size < 0 {
			return
		}
		do(n, v, x)
		data = data[size:]
	}
}
