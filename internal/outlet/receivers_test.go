package outlet

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leodido/go-syslog/v4/rfc5424"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/journal"
)

// seen is the numbers of events that a receiver has, in the order of arrival.
type seen struct {
	mu  sync.Mutex
	all []uint64
}

func (s *seen) add(id string) {
	_, seq, _ := journal.ParseID(cluster.EventID(id))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, seq)
}

func (s *seen) list() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// want waits until all events from 1 to last are there, and checks that none came
// before one that is older, the first time that it came.
func (s *seen) want(t *testing.T, last uint64) {
	t.Helper()
	until(t, fmt.Sprintf("event %d", last), func() bool { return slices.Contains(s.list(), last) })
	next := uint64(1)
	for _, n := range s.list() {
		if n > next {
			t.Fatalf("%d came before %d: %v", n, next, s.list())
		}
		if n == next {
			next++
		}
	}
}

// certificate is what httptest's servers show, for those that are none; the file
// has it for whoever is to trust it.
func certificate(t *testing.T) (conf *tls.Config, file string) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	file = filepath.Join(t.TempDir(), "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: s.TLS.Certificates}, file
}

// syslogd is a syslog daemon for streams, which can be killed and hang.
type syslogd struct {
	t       *testing.T
	tls     *tls.Config // nil: plain TCP
	address string
	seen

	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
	hangs bool // it accepts, and reads nothing
	wg    sync.WaitGroup
}

func newSyslogd(t *testing.T, conf *tls.Config) *syslogd {
	s := &syslogd{t: t, tls: conf, address: "127.0.0.1:0"}
	s.open(false)
	t.Cleanup(s.kill)
	return s
}

func (s *syslogd) open(hangs bool) {
	s.t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.address = l.Addr().String()
	if s.tls != nil {
		l = tls.NewListener(l, s.tls)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.l, s.hangs = l, hangs
	s.wg.Go(func() { s.accept(l, hangs) })
}

func (s *syslogd) accept(l net.Listener, hangs bool) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		if !hangs {
			s.wg.Go(func() { s.read(c) })
		} else if t, is := c.(*tls.Conn); is {
			s.wg.Go(func() { _ = t.Handshake() })
		}
	}
}

// read takes frames as RFC 6587 has them: LENGTH SP MESSAGE.
func (s *syslogd) read(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		length, err := in.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil {
			s.t.Errorf("a frame of length %q", length)
			return
		}
		msg := make([]byte, n)
		if _, err := io.ReadFull(in, msg); err != nil {
			return
		}
		s.add(eventOf(s.t, msg))
	}
}

// eventOf returns the id of the event in a message.
func eventOf(t *testing.T, msg []byte) string {
	m, err := rfc5424.NewParser().Parse(msg)
	if err != nil {
		t.Errorf("%q: %v", msg, err)
		return ""
	}
	return (*m.(*rfc5424.SyslogMessage).StructuredData)[dataID]["event"]
}

// kill ends it as a crash does: what it has not read yet is lost.
func (s *syslogd) kill() {
	s.mu.Lock()
	_ = s.l.Close()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
}

func streamOutlet(network, address, ca string) string {
	extra := ""
	if ca != "" {
		extra = ", ca: " + ca
	}
	return fmt.Sprintf("{siem: {kind: syslog, to: '%s://%s', timeout: 200ms%s}}", network, address, extra)
}

// A syslog daemon over TCP or TLS that is killed, away, hung and back again has
// every event in the end, in order.
func TestSyslogStream(t *testing.T) {
	for _, network := range []string{"tcp", "tls"} {
		t.Run(network, func(t *testing.T) {
			var conf *tls.Config
			ca := ""
			if network == "tls" {
				conf, ca = certificate(t)
			}
			s := newSyslogd(t, conf)
			n := start(t, t.TempDir(), nil)
			f := with(t, streamOutlet(network, s.address, ca))
			n.follow(f)
			n.happen(20)
			s.want(t, 20)
			s.kill()
			n.happen(20) // nobody listens
			until(t, "it is noticed", func() bool { return !n.outlets.States()[0].Works })
			s.open(true) // one that reads nothing: its machine takes what it can
			n.happen(20)
			until(t, "its machine has them", func() bool { return n.outlets.States()[0].Waiting == 0 })
			s.kill() // without having read them
			s.open(false)
			n.happen(1)
			s.want(t, 61)
			n.restart(f) // ours, this time
			n.happen(10)
			s.want(t, 71)
			until(t, "it knows", func() bool {
				state := n.outlets.States()[0]
				return state.Works && state.Delivered == 71 && state.Waiting == 0
			})
		})
	}
}

// A machine that is gone without a word: nothing counts as delivered before it is
// acknowledged.
func TestSyslogWithoutAcknowledgement(t *testing.T) {
	// What it accepts gets this buffer before the first byte can arrive.
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
		return errors.Join(failed, err)
	}}
	l, err := small.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	held := make(chan net.Conn, 64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(held)
				return
			}
			held <- c
		}
	}()
	n := start(t, t.TempDir(), nil)
	n.follow(with(t, streamOutlet("tcp", l.Addr().String(), "")))
	big := strings.Repeat("x", 4000)
	for range 64 { // more than that takes
		n.record(t.Context(), api.Event{Level: cluster.LevelInfo, Text: big})
	}
	until(t, "it stands", func() bool { return !n.outlets.States()[0].Works })
	if s := n.outlets.States()[0]; s.Waiting == 0 || !strings.Contains(s.Why, "syslog") {
		t.Errorf("%+v", s)
	}
	n.stop()
	_ = l.Close()
	for c := range held {
		_ = c.Close()
	}
}

func TestSyslogTrust(t *testing.T) {
	conf, _ := certificate(t)
	s := newSyslogd(t, conf)
	n := start(t, t.TempDir(), nil)
	n.follow(with(t, streamOutlet("tls", s.address, "")))
	n.happen(1)
	until(t, "it distrusts the daemon", func() bool { return strings.Contains(n.outlets.States()[0].Why, "certificate") })
	if got := s.list(); len(got) > 0 {
		t.Errorf("a stranger got %v", got)
	}
}

// localSyslog is a syslog daemon of this machine: a socket that takes packets
// (unixgram, udp), or one that takes lines (unix).
type localSyslog struct {
	t    *testing.T
	kind string
	path string
	seen

	packets net.PacketConn
	lines   net.Listener
	wg      sync.WaitGroup
}

// open listens and returns where.
func (s *localSyslog) open() string {
	s.t.Helper()
	address := s.path
	if s.kind == "udp" {
		address = "127.0.0.1:0"
	}
	var err error
	if s.kind == "unix" {
		s.lines, err = net.Listen(s.kind, address)
	} else {
		s.packets, err = net.ListenPacket(s.kind, address)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if s.kind == "unix" {
		s.wg.Go(s.readLines)
		return "unix://" + s.path
	}
	s.wg.Go(s.readPackets)
	if s.kind == "udp" {
		return "udp://" + s.packets.LocalAddr().String()
	}
	return "unix://" + s.path
}

func (s *localSyslog) readPackets() {
	buf := make([]byte, 64<<10)
	for {
		size, _, err := s.packets.ReadFrom(buf)
		if err != nil {
			return
		}
		s.add(eventOf(s.t, buf[:size]))
	}
}

func (s *localSyslog) readLines() {
	c, err := s.lines.Accept()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		s.add(eventOf(s.t, lines.Bytes()))
	}
}

func (s *localSyslog) close() {
	if s.packets != nil {
		_ = s.packets.Close()
	} else {
		_ = s.lines.Close()
	}
	s.wg.Wait()
}

// A socket of this machine: packets, or lines, also after the daemon was away.
func TestSyslogLocal(t *testing.T) {
	for _, kind := range []string{"unixgram", "unix", "udp"} {
		t.Run(kind, func(t *testing.T) {
			s := &localSyslog{t: t, kind: kind, path: filepath.Join(t.TempDir(), "log")}
			to := s.open()
			n := start(t, t.TempDir(), nil)
			n.follow(with(t, fmt.Sprintf("{log: {kind: syslog, to: '%s'}}", to)))
			n.happen(20)
			s.want(t, 20)
			if kind == "unixgram" {
				s.close()
				n.happen(10)
				until(t, "it is noticed", func() bool { return !n.outlets.States()[0].Works })
				if err := os.Remove(s.path); err != nil {
					t.Fatal(err)
				}
				s.open()
				s.want(t, 30)
			}
			n.stop() // which ends the line that it reads
			s.close()
		})
	}
}

// A message has everything of its event, whatever is in it.
func TestSyslogMessage(t *testing.T) {
	d := &Delivery{Cluster: "c", Number: 1 << 31, Missed: 3, Event: api.Event{
		ID: "a/7", Node: "a", Time: time.Date(2026, 11, 28, 12, 0, 0, 123456789, time.FixedZone("", 3600)), Level: cluster.LevelError, Module: "rc", Code: "a code",
		Cause: "b/3", Text: "Zwei\nZeilen — \"so\" \\ ]", Fields: map[string]string{"group": `web"]\`, "a=b]c\" ü": "x", strings.Repeat("k", 60): "long"},
	}}
	text, err := syslogMessage(d, facilities["local3"])
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := rfc5424.NewParser().Parse([]byte(text))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	m := parsed.(*rfc5424.SyslogMessage)
	if *m.FacilityLevel() != "local3" || *m.SeverityShortLevel() != "err" || *m.Hostname != "a" || *m.Appname != "tasuki" || *m.MsgID != "a_code" {
		t.Errorf("%q", text)
	}
	if got := m.Timestamp.UTC().Format(time.RFC3339Nano); got != "2026-11-28T11:00:00.123456Z" {
		t.Error(got)
	}
	if *m.Message != `Zwei Zeilen — "so" \ ]` {
		t.Errorf("%q", *m.Message)
	}
	data := *m.StructuredData
	if data["meta"]["sequenceId"] != "1" { // it begins again
		t.Error(data["meta"])
	}
	want := map[string]string{"cluster": "c", "event": "a/7", "number": "2147483648", "module": "rc", "cause": "b/3", "missed": "3",
		"field_group": `web"]\`, "field_a_b_c___": "x", "field_" + strings.Repeat("k", 26): "long"}
	for k, v := range want {
		if got := data[dataID][k]; got != v {
			t.Errorf("%s: %q, not %q", k, got, v)
		}
	}
	if len(data[dataID]) != len(want) {
		t.Errorf("%v", data[dataID])
	}
}

// hook is a web server that misbehaves.
type hook struct {
	t      *testing.T
	secret string
	server *httptest.Server
	seen

	mu   sync.Mutex
	says func(w http.ResponseWriter, r *http.Request) bool // true: it has answered, and does not take the event
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	says := h.says
	h.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if says != nil && says(w, r) || err != nil {
		return
	}
	key, err := standardwebhooks.NewWebhookRaw([]byte(h.secret))
	if err != nil {
		h.t.Error(err)
		return
	}
	if err := key.Verify(body, r.Header); err != nil {
		h.t.Errorf("%v: %s", err, body)
	}
	var d Delivery
	if err := json.Unmarshal(body, &d); err != nil || r.Header.Get("webhook-id") != "c/"+string(d.Event.ID) || r.Header.Get("Content-Type") != "application/json" {
		h.t.Errorf("%v %s %v", err, body, r.Header)
	}
	h.add(string(d.Event.ID))
	w.WriteHeader(http.StatusNoContent)
}

func (h *hook) set(says func(http.ResponseWriter, *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.says = says
}

// A web server that fails, hangs, breaks off, redirects, is killed and comes back
// has every event in the end, in order, signed.
func TestWebhook(t *testing.T) {
	h := &hook{t: t, secret: "a secret of some length"}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(h.secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, ca := certificate(t)
	h.server = httptest.NewUnstartedServer(h)
	h.server.TLS = conf
	h.server.StartTLS()
	address := h.server.Listener.Addr().String()
	n := start(t, t.TempDir(), nil)
	f := with(t, fmt.Sprintf("{pager: {kind: webhook, url: 'https://%s/events', secret_file: %s, ca: %s, timeout: 200ms}}", address, secret, ca))
	n.follow(f)
	n.happen(10)
	h.want(t, 10)
	last := uint64(10)
	for what, says := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"500": func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		},
		"404": func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusNotFound); return true },
		"redirects": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return true
		},
		"hangs":      func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
		"breaks off": func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
	} {
		h.set(says)
		n.happen(5)
		last += 5
		until(t, what, func() bool { s := n.outlets.States()[0]; return !s.Works && s.Waiting >= 5 })
		h.set(nil)
		h.want(t, last)
	}
	h.server.CloseClientConnections()
	h.server.Close()
	n.happen(5)
	until(t, "it is noticed", func() bool { return !n.outlets.States()[0].Works })
	n.restart(f) // ours is killed too
	n.happen(5)
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	back := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}, TLS: conf}
	back.StartTLS()
	defer back.Close()
	h.want(t, last+10)
}

// A receiver that says that an event is bad does not get it for ever.
func TestWebhookRefuses(t *testing.T) {
	h := &hook{t: t, secret: "a secret of some length"}
	tries := 0
	h.set(func(w http.ResponseWriter, r *http.Request) bool {
		bad := strings.HasSuffix(r.Header.Get("webhook-id"), "/2")
		if bad {
			tries++
			http.Error(w, "no such thing", http.StatusUnprocessableEntity)
		}
		return bad
	})
	conf, ca := certificate(t)
	h.server = httptest.NewUnstartedServer(h)
	h.server.TLS = conf
	h.server.StartTLS()
	defer h.server.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(h.secret), 0o600); err != nil {
		t.Fatal(err)
	}
	n := start(t, t.TempDir(), nil)
	n.follow(with(t, fmt.Sprintf("{pager: {kind: webhook, url: '%s/events', secret_file: %s, ca: %s}}", h.server.URL, secret, ca)))
	n.happen(3)
	until(t, "event 3 and the line of the log", func() bool { return slices.Equal(h.list(), []uint64{1, 3, 4}) })
	if tries != refuseTrys {
		t.Errorf("it was tried %d times", tries)
	}
}

// Without its secret an outlet sends nothing.
func TestWebhookWithoutSecret(t *testing.T) {
	h := &hook{t: t}
	h.set(func(http.ResponseWriter, *http.Request) bool { t.Error("it was posted"); return true })
	conf, ca := certificate(t)
	h.server = httptest.NewUnstartedServer(h)
	h.server.TLS = conf
	h.server.StartTLS()
	defer h.server.Close()
	for text, why := range map[string]string{"": "less than 16", "short": "less than 16", "whsec_this is no base64 at all": "base64"} {
		secret := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n := start(t, t.TempDir(), nil)
		n.follow(with(t, fmt.Sprintf("{pager: {kind: webhook, url: '%s', secret_file: %s, ca: %s}}", h.server.URL, secret, ca)))
		n.happen(1)
		until(t, why, func() bool { return strings.Contains(n.outlets.States()[0].Why, why) })
		n.stop()
	}
}

// program writes a script that root trusts.
func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// A program reads each event as a line of JSON; it is run again until it has ended
// with 0.
func TestCommand(t *testing.T) {
	dir := t.TempDir()
	path := program(t, `
cat >> "$1/all"; echo >> "$1/all"
if [ -e "$1/fail" ]; then echo "the mail system is down"; exit 1; fi
if [ -e "$1/hang" ]; then sleep 600; fi
`)
	var s seen
	read := func() {
		s.mu.Lock()
		s.all = nil
		s.mu.Unlock()
		data, err := os.ReadFile(filepath.Join(dir, "all"))
		if err != nil {
			return
		}
		for line := range strings.Lines(string(data)) {
			var d Delivery
			if json.Unmarshal([]byte(line), &d) == nil && d.Event.ID != "" {
				s.add(string(d.Event.ID))
			}
		}
	}
	n := start(t, t.TempDir(), nil)
	n.follow(with(t, fmt.Sprintf("{mail: {kind: command, command: [%s, %s], timeout: 300ms}}", path, dir)))
	waiting := func(count int) func() bool {
		return func() bool { return n.outlets.States()[0].Waiting == count }
	}
	n.happen(3)
	until(t, "3 events", waiting(0))
	for _, how := range []string{"fail", "hang"} {
		mark := filepath.Join(dir, how)
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		n.happen(2)
		until(t, how, func() bool { return !n.outlets.States()[0].Works })
		if why := n.outlets.States()[0].Why; how == "fail" && !strings.Contains(why, "exit code 1: the mail system is down") {
			t.Error(why)
		}
		if err := os.Remove(mark); err != nil {
			t.Fatal(err)
		}
		until(t, "after that", waiting(0))
	}
	read()
	s.want(t, 7)
}

// Only programs that nobody but root could have written are run.
func TestCommandOfOthers(t *testing.T) {
	path := program(t, "exit 0\n")
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	c := &command{argv: []string{path}}
	if err := c.deliver(t.Context(), &Delivery{}); err == nil || !strings.Contains(err.Error(), "can be written by others") {
		t.Error(err)
	}
	refuses := &command{argv: []string{program(t, "exit 65\n")}}
	if err := refuses.deliver(t.Context(), &Delivery{}); err == nil || !strings.Contains(err.Error(), errRefused.Error()) {
		t.Error(err)
	}
}

// An outlet of a kind that this version does not know says so.
func TestUnknownKind(t *testing.T) {
	s := newSink(config.Outlet{Kind: "pigeon"}, nil)
	if err := s.deliver(t.Context(), &Delivery{}); err == nil || !strings.Contains(err.Error(), "pigeon") {
		t.Error(err)
	}
}

// What docs/events.md shows is what receivers get, and the cluster file takes.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind, begins string) string {
		t.Helper()
		_, after, found := strings.Cut(string(data), "```"+kind+"\n"+begins)
		text, _, ends := strings.Cut(after, "```")
		if !found || !ends {
			t.Fatalf("there is no %s that begins with %q", kind, begins)
		}
		return begins + text
	}
	for _, begins := range []string{"outlets:\n  journal:", "outlets:\n  traces:"} {
		if _, errs := config.Parse("f", []byte("cluster: c\nnodes: {a: {addresses: [192.0.2.1]}}\n"+block("yaml", begins))); len(errs) > 0 {
			t.Error(errs)
		}
	}
	var d Delivery
	in := json.NewDecoder(strings.NewReader(block("json", "{")))
	in.DisallowUnknownFields()
	if err := in.Decode(&d); err != nil {
		t.Fatal(err)
	}
	text, err := syslogMessage(&d, facilities["local3"])
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSpace(block("", "<")); text != want {
		t.Errorf("\n%s, not\n%s", text, want)
	}
}
