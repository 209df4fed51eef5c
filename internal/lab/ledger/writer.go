package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Defaults of a Writer, and its bounds.
const (
	defaultTimeout = 250 * time.Millisecond // as the client that asks for a page
	retryAfter     = 10 * time.Millisecond
	maxLanes       = 64
	maxAcks        = 1 << 20
	readWithin     = 10 * time.Second
	maxRecords     = 256 << 20 // bytes of the file that are read back
)

// Writer is a client of the service: each of its lanes writes one text after
// another, and one that was not acknowledged again and again until it is. So a
// text can stand in the file more than once.
type Writer struct {
	URL     string // such as http://10.2.102.50:8090
	Name    string // of this writer, in its texts; another one for each writer of a file
	Lanes   int    // 0: one
	Timeout time.Duration
	Dial    func(ctx context.Context, network, address string) (net.Conn, error) // from where

	mu    sync.Mutex
	acks  []Ack
	heard chan struct{}
}

// Ack is one write that was acknowledged.
type Ack struct {
	Record
	Node       string    // who did
	Sent, Done time.Time // of the attempt that was
	Tries      int
}

// Run writes until ctx ends, and then finishes the attempts under way.
func (w *Writer) Run(ctx context.Context) error {
	lanes := max(w.Lanes, 1)
	if lanes > maxLanes || !isText(w.Name) || w.URL == "" {
		return fmt.Errorf("a writer needs a URL, a name without spaces, and at most %d lanes", maxLanes)
	}
	var all sync.WaitGroup
	errs := make([]error, lanes)
	for i := range lanes {
		all.Go(func() { errs[i] = w.lane(ctx, i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (w *Writer) lane(ctx context.Context, lane int) error {
	transport := &http.Transport{DialContext: w.Dial, MaxIdleConns: 1, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: w.Timeout}
	if w.Timeout <= 0 {
		client.Timeout = defaultTimeout
	}
	retry := time.NewTimer(0)
	defer retry.Stop()
	for n := 1; ; n++ {
		text := fmt.Sprintf("%s/%d/%d", w.Name, lane, n)
		for try := 1; ; try++ {
			if ctx.Err() != nil {
				return nil
			}
			a := Ack{Sent: time.Now(), Tries: try}
			err := w.send(context.WithoutCancel(ctx), client, text, &a)
			if err == nil {
				if err := w.keep(a); err != nil {
					return err
				}
				break
			}
			transport.CloseIdleConnections() // the next attempt may find another node
			retry.Reset(retryAfter)
			select {
			case <-retry.C:
			case <-ctx.Done():
			}
		}
	}
}

// send makes one attempt; an error says that nobody knows what became of it.
func (w *Writer) send(ctx context.Context, client *http.Client, text string, a *Ack) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/append", strings.NewReader(text))
	if err != nil {
		return err
	}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	if _, err := fmt.Sscan(string(body), &a.Node, &a.Number); err != nil {
		return fmt.Errorf("not an acknowledgement: %q", body)
	}
	a.Text, a.Done = text, time.Now()
	return nil
}

func (w *Writer) keep(a Ack) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.acks) >= maxAcks {
		return fmt.Errorf("%d writes were acknowledged, which is all that the writer can remember", maxAcks)
	}
	w.acks = append(w.acks, a)
	if w.heard != nil {
		close(w.heard)
		w.heard = nil
	}
	return nil
}

// Acks returns what was acknowledged so far, in the order of the answers.
func (w *Writer) Acks() []Ack {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acks)
}

// Await returns when n more writes were acknowledged by a node, any if it is "".
func (w *Writer) Await(ctx context.Context, node string, n int) error {
	w.mu.Lock()
	seen := len(w.acks)
	w.mu.Unlock()
	for {
		w.mu.Lock()
		for ; seen < len(w.acks); seen++ {
			if node == "" || w.acks[seen].Node == node {
				n--
			}
		}
		if w.heard == nil {
			w.heard = make(chan struct{})
		}
		heard := w.heard
		w.mu.Unlock()
		if n <= 0 {
			return nil
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return fmt.Errorf("no write is acknowledged at %s: %w", w.URL, ctx.Err())
		}
	}
}

// Result is what became of the acknowledged writes.
type Result struct {
	Acknowledged int      `json:"acknowledged"`
	Lost         []Record `json:"lost,omitempty"` // acknowledged, and not in the file
	Twice        int      `json:"twice"`          // texts that stand there more than once
	Torn         int      `json:"torn"`           // lines that are no record
}

// Check reads the file back from whoever serves it now, and compares.
func (w *Writer) Check(ctx context.Context) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	transport := &http.Transport{DialContext: w.Dial}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/records", nil)
	if err != nil {
		return Result{}, err
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return Result{}, fmt.Errorf("read the records back: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Result{}, fmt.Errorf("read the records back: %s", resp.Status)
	}
	records, torn, err := Read(io.LimitReader(resp.Body, maxRecords))
	if err != nil {
		return Result{}, fmt.Errorf("read the records back: %w", err)
	}
	return Judge(w.Acks(), records, torn), nil
}

// Judge compares what was acknowledged with the records of a file, in whatever
// order these stand, and however often. The number counts too: a record that an
// unanswered attempt left is not the one that was acknowledged.
func Judge(acks []Ack, records []Record, torn int) Result {
	there, texts := map[Record]bool{}, map[string]int{}
	res := Result{Acknowledged: len(acks), Torn: torn}
	for _, r := range records {
		if !there[r] {
			there[r] = true
			if texts[r.Text]++; texts[r.Text] == 2 {
				res.Twice++
			}
		}
	}
	for _, a := range acks {
		if !there[a.Record] {
			res.Lost = append(res.Lost, a.Record)
		}
	}
	return res
}
