package ledger

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadTakesNothingButWholeRecords(t *testing.T) {
	a, b := Record{1, "w/0/1"}, Record{2, "w/1/1"}
	for name, c := range map[string]struct {
		file string
		want []Record
		torn int
	}{
		"empty":        {"", nil, 0},
		"whole":        {a.line() + b.line(), []Record{a, b}, 0},
		"torn at last": {a.line() + b.line()[:9], []Record{a}, 1},
		"without end":  {a.line() + strings.TrimSpace(b.line()), []Record{a}, 1},
		"torn between": {a.line()[:5] + "\n" + b.line(), []Record{b}, 1},
		"overwritten":  {a.line()[:5] + b.line(), nil, 1},
		"other order":  {b.line() + a.line() + b.line(), []Record{b, a, b}, 0},
		"another text": {strings.Replace(a.line(), "w", "v", 1), nil, 1},
		"zeroes":       {a.line() + strings.Repeat("\x00", 512), []Record{a}, 1},
	} {
		got, torn, err := Read(strings.NewReader(c.file))
		if d := cmp.Diff(c.want, got); d != "" || torn != c.torn || err != nil {
			t.Errorf("%s: %d torn, %v, -want +got\n%s", name, torn, err, d)
		}
	}
}

// However a file is cut off and gone on with, what was whole stays, and numbers
// are not given twice.
func TestBookGoesOnWhereItEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	random := rand.New(rand.NewPCG(1, 2))
	whole := map[Record]bool{}
	for life := range 50 {
		b, err := open(path)
		must(t, err)
		for i := range 5 {
			text := fmt.Sprintf("life%d/%d", life, i)
			n, err := b.append(text)
			must(t, err)
			if whole[Record{n, text}] {
				t.Fatalf("%d is given twice", n)
			}
			whole[Record{n, text}] = true
		}
		must(t, b.file.Close())
		data, err := os.ReadFile(path)
		must(t, err)
		last := bytes.LastIndexByte(data[:len(data)-1], '\n') + 1
		if random.IntN(2) == 0 { // the last record is torn
			records, _, err := Read(bytes.NewReader(data[last:]))
			must(t, err)
			delete(whole, records[0])
			must(t, os.Truncate(path, int64(last+random.IntN(len(data)-last))))
		}
	}
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	records, _, err := Read(f)
	must(t, err)
	if len(records) != len(whole) {
		t.Errorf("%d records, not %d", len(records), len(whole))
	}
	for _, r := range records {
		if !whole[r] {
			t.Errorf("%+v was torn", r)
		}
	}
}

func TestNothingIsAcknowledgedAfterAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	b, err := open(path)
	must(t, err)
	failed := make(chan error, 1)
	h := b.handler("n1", failed)
	ask := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/append", strings.NewReader("x")))
		return w.Code
	}
	if code := ask(); code != http.StatusOK {
		t.Fatal(code)
	}
	good := b.file
	b.file, err = os.Open(path) // cannot be written
	must(t, err)
	defer b.file.Close()
	if code := ask(); code != http.StatusInternalServerError {
		t.Error(code)
	}
	b.file = good
	defer good.Close()
	if code := ask(); code != http.StatusInternalServerError {
		t.Errorf("%d after an error", code)
	}
	select {
	case <-failed:
	default:
		t.Error("nobody is told")
	}
}

// serve starts the service on a file of the test.
func serve(t *testing.T, path string) (url string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := Serve(ctx, path, "127.0.0.1:0", "n1", w)
		w.CloseWithError(err)
		done <- err
	}()
	var address string
	_, err := fmt.Fscanf(r, "listening on %s\n", &address)
	must(t, err)
	return "http://" + address, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestServiceRefuses(t *testing.T) {
	url, stop := serve(t, filepath.Join(t.TempDir(), "journal"))
	defer stop()
	for _, text := range []string{"", "two words", "a\nb", strings.Repeat("x", maxText+1)} {
		resp, err := http.Post(url+"/append", "text/plain", strings.NewReader(text))
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%.20q: %s", text, resp.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// The connection breaks again and again, the service ends and comes back: every
// write is acknowledged in the end, and none is lost.
func TestWriterGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	url, stop := serve(t, path)
	random := rand.New(rand.NewPCG(3, 4))
	breaks := make(chan bool, 1)
	breaks <- false
	at := strings.TrimPrefix(url, "http://")
	w := &Writer{URL: "http://10.2.102.50:8090", Name: "w", Lanes: 4, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		<-breaks
		c, err := new(net.Dialer).DialContext(ctx, network, at)
		if err == nil && random.IntN(2) == 0 {
			c = &breaking{Conn: c, reads: random.IntN(20)}
		}
		breaks <- false
		return c, err
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	soon, end := context.WithTimeout(ctx, 20*time.Second)
	defer end()
	must(t, w.Await(soon, "n1", 100))
	stop()
	<-breaks
	url, stop = serve(t, path)
	defer stop()
	at = strings.TrimPrefix(url, "http://")
	breaks <- false
	must(t, w.Await(soon, "", 100))
	cancel()
	must(t, <-done)
	res, err := w.Check(t.Context())
	must(t, err)
	if res.Acknowledged < 200 || len(res.Lost) != 0 || res.Torn != 0 {
		t.Errorf("%+v", res)
	}
	if res.Twice == 0 {
		t.Error("no answer was lost on its way: this test tries nothing")
	}
	next := map[string]int{}
	for _, a := range w.Acks() {
		lane, n := "", 0
		_, err := fmt.Sscanf(strings.ReplaceAll(a.Text, "/", " "), "w %s %d", &lane, &n)
		must(t, err)
		if next[lane]++; n != next[lane] {
			t.Fatalf("%s follows %d", a.Text, next[lane]-1)
		}
	}
}

// breaking is a connection that ends before its n-th answer is read.
type breaking struct {
	net.Conn
	reads int
}

func (b *breaking) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if b.reads--; b.reads < 0 && err == nil {
		b.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func TestJudge(t *testing.T) {
	acks := []Ack{{Record: Record{1, "w/0/1"}}, {Record: Record{3, "w/0/2"}}, {Record: Record{4, "w/1/1"}}}
	for name, c := range map[string]struct {
		records []Record
		want    Result
	}{
		"all there":          {[]Record{{1, "w/0/1"}, {2, "w/0/2"}, {3, "w/0/2"}, {4, "w/1/1"}}, Result{Acknowledged: 3, Twice: 1}},
		"lost at the end":    {[]Record{{1, "w/0/1"}, {3, "w/0/2"}}, Result{Acknowledged: 3, Lost: []Record{{4, "w/1/1"}}}},
		"only the other try": {[]Record{{4, "w/1/1"}, {2, "w/0/2"}, {1, "w/0/1"}}, Result{Acknowledged: 3, Lost: []Record{{3, "w/0/2"}}}},
		"an empty file":      {nil, Result{Acknowledged: 3, Lost: []Record{{1, "w/0/1"}, {3, "w/0/2"}, {4, "w/1/1"}}}},
		"copied lines":       {[]Record{{4, "w/1/1"}, {3, "w/0/2"}, {1, "w/0/1"}, {1, "w/0/1"}}, Result{Acknowledged: 3}},
	} {
		if d := cmp.Diff(c.want, Judge(acks, c.records, 0)); d != "" {
			t.Errorf("%s: -want +got\n%s", name, d)
		}
	}
}
