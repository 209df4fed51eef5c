package mirrordisk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/host/priority"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/resource"
	"github.com/tasuki-ha/tasuki/internal/script"
	"github.com/tasuki-ha/tasuki/internal/state"
)

const (
	firstPause  = 50 * time.Millisecond // between two tries to reach a process
	longPause   = 5 * time.Second       //
	answerLimit = 10 * time.Second      // of what a process can answer at once
	lookEvery   = 5 * time.Second       // how often a process is asked for its status
	missedAfter = 3 * time.Second       // how long a process may be out of reach before that is told
	absentAfter = 10 * time.Second      // and that of an active copy, beyond its io_timeout, before it has failed
	mostNotices = 64                    // that wait to be told; more are lost
)

// fileOrder is the file with the serial of the latest order that was seen.
const fileOrder = "order"

// mirror is one mirror disk on this node.
type mirror struct {
	d    *Driver
	name cluster.ResourceName
	dir  string

	wake   chan struct{} // capacity 1: something is to be passed on to the process
	heard  chan struct{} // capacity 1: something is to be passed on to the daemon
	ice    chan struct{} // capacity 1: full while somebody freezes or thaws
	kernel slow
	looks  slow
	saving chan struct{} // capacity 1: full while the copy is being kept

	mu      sync.Mutex
	running bool              // run is at work
	group   cluster.GroupName // that it is in
	spec    *control.Spec     // as the file wants it; nil: it is not in the file
	settled *control.Spec     // that the process is known to go by
	told    *state.Mirror     // as agreed
	life    uint32            // in which that was
	client  *control.Client   // of run; nil while the process is not reached
	keeper  chan struct{}     // closed when the keeper that was started here has ended; nil: none
	barred  bool              // none is started
	absent  bool              // no process is reached for so long that an active copy has failed
	active  *activation       // nil: nobody needs to hear of a failure
	lost    bool              // what waits here can never complete
	status  control.Status
	copy    api.MirrorCopy // what Status was told last
	counted count

	// What the daemon is to hear of.
	asked   *control.Ask // the latest; told again where it is fresh
	ask     bool
	fresh   bool // status is
	failure string
	notices []control.Notice
}

// activation is what a failure is told of.
type activation struct {
	group  cluster.GroupName
	epoch  cluster.Epoch
	device string
}

func nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (m *mirror) stir()   { nudge(m.wake) }
func (m *mirror) signal() { nudge(m.heard) }

func (m *mirror) file(name string) string { return filepath.Join(m.dir, name) }
func (m *mirror) socket() string          { return m.file(control.FileSocket) }
func (m *mirror) logFile() script.Log {
	return script.Log{Path: filepath.Join(m.d.o.Logs, "mirror-"+string(m.name)+".log"), MaxSize: 4 << 20}
}

// follow notes what the file says; nil: it is not there any more.
func (m *mirror) follow(ctx context.Context, g cluster.GroupName, s *control.Spec) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spec = s
	if s != nil {
		m.group = g
	}
	if !m.running && ctx.Err() == nil {
		m.running = true
		go m.run(ctx)
	}
	m.stir()
}

func (m *mirror) groupName() cluster.GroupName {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.group
}

// wanted returns the Spec of the file, or nil.
func (m *mirror) wanted() *control.Spec {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spec
}

// run keeps a process at work, and speaks with it, until ctx ends or the mirror
// disk is not wanted any more and gone.
func (m *mirror) run(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go m.tell(ctx)
	missed, pause := time.Now(), firstPause
	for {
		c, err := control.Dial(ctx, m.socket(), m.take)
		if err == nil {
			pause, missed = firstPause, time.Time{}
			m.attend(ctx, c)
		} else if m.unreached() {
			return
		}
		switch {
		case missed.IsZero():
			missed = time.Now()
		case time.Since(missed) > missedAfter:
			m.missed(time.Since(missed))
		}
		select {
		case <-ctx.Done():
			m.mu.Lock()
			m.running = false
			m.mu.Unlock()
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longPause)
	}
}

// unreached does what there is to do about a process that cannot be reached. It
// says whether all is over: it is not wanted, and gone.
func (m *mirror) unreached() (over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.spec == nil {
		if m.kept() || m.wasActive() {
			return false
		}
		if err := os.RemoveAll(m.dir); err != nil {
			m.d.o.Log.Error("the directory of a mirror disk that was is not removed", "resource", m.name, "error", err)
			return false
		}
		m.running, m.copy = false, api.MirrorCopy{}
		return true
	}
	if m.barred {
		return false
	}
	if err := m.writeSpec(); err != nil {
		m.d.o.Log.Error("a mirror disk cannot be served", "resource", m.name, "error", err)
		return false
	}
	if err := m.startKeeper(); err != nil {
		m.d.o.Log.Error("the process of a mirror disk does not start", "resource", m.name, "error", err)
	}
	return false
}

// wasActive says whether a process that starts now takes up an active copy.
func (m *mirror) wasActive() bool {
	_, err := os.Stat(m.file(control.FileActive))
	return err == nil
}

// writeSpec brings the file's Spec to where a process finds it that starts now.
// What is active keeps its devices until it is stopped.
func (m *mirror) writeSpec() error {
	s := *m.spec
	if old, err := control.ReadSpec(m.dir); err == nil && m.wasActive() {
		s.Data, s.Meta, s.Peer = old.Data, old.Meta, old.Peer
	}
	_, err := control.WriteSpec(m.dir, s)
	return err
}

// startKeeper starts a keeper unless one that was started here lives. One too many
// ends at once. It has a session of its own, so that it outlives the daemon.
func (m *mirror) startKeeper() error {
	if m.keeps() || m.d.o.Keeper == nil {
		return nil
	}
	log := m.logFile()
	if err := log.Trim(); err != nil {
		m.d.o.Log.Warn("a log cannot be rotated", "error", err)
	}
	out, err := os.OpenFile(log.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("open the log of a mirror disk: %w", err)
	}
	defer out.Close()
	cmd := m.d.o.Keeper(m.dir)
	cmd.Dir, cmd.Stderr = "/", out // no mount is kept busy; input and output are /dev/null
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := priority.Ordinary(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	ended := make(chan struct{})
	m.keeper = ended
	go func() {
		_ = cmd.Wait() // the log has its reason
		close(ended)
	}()
	return nil
}

// keeps says whether a keeper that was started here has not ended.
func (m *mirror) keeps() bool {
	if m.keeper == nil {
		return false
	}
	select {
	case <-m.keeper:
		return false
	default:
		return true
	}
}

// attend speaks with a process until the connection ends.
func (m *mirror) attend(ctx context.Context, c *control.Client) {
	m.mu.Lock()
	m.client, m.absent = c, false
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.client = nil
		m.mu.Unlock()
		_ = c.Close()
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	t := talk{mirror: m, c: c}
	for {
		if err := t.pass(ctx); err != nil {
			if ctx.Err() == nil {
				m.stuck(ctx, err)
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-c.Done():
			return
		case <-m.wake:
		case <-tick.C:
			if err := m.logFile().Trim(); err != nil {
				m.d.o.Log.Warn("a log cannot be rotated", "error", err)
			}
		}
	}
}

// stuck deals with a process that did not do what it was asked. One that does not
// answer at all is killed: its keeper starts another, which takes up what the kernel
// asks, and nothing of it is lost.
func (m *mirror) stuck(ctx context.Context, err error) {
	if !errors.Is(err, errSilent) {
		m.d.o.Log.Warn("the process of a mirror disk is spoken to again", "resource", m.name, "error", err)
		return
	}
	m.d.notice(m.groupName(), m.name, cluster.LevelError, "mirror-process-hangs", "", "The process of mirror disk %s does not answer for %s and is killed, so that another one takes its place.", m.name, m.d.patience)
	m.note(control.Status{Apart: "its process does not answer"})
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	if err := m.kill(ctx); err != nil {
		m.d.o.Log.Error("the process of a mirror disk that does not answer could not be killed", "resource", m.name, "error", err)
	}
}

// talk is one connection of run.
type talk struct {
	*mirror
	c    *control.Client
	sent *state.Mirror // that the process was told last
}

// pass brings to the process what it has to know now. After an error the
// connection is begun anew.
func (t *talk) pass(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.d.patience)
	defer cancel()
	s, err := query(ctx, t.c)
	if errors.Is(err, context.DeadlineExceeded) {
		return errSilent
	}
	if err != nil {
		return err
	}
	t.note(s)
	spec := t.wanted()
	if quit, err := t.follows(s); err != nil {
		return err
	} else if quit {
		return t.quit(ctx)
	}
	if err := t.settleIce(ctx, s); err != nil {
		return err
	}
	t.mu.Lock()
	told, life := t.told, t.life
	t.settled = spec
	t.mu.Unlock()
	if told == nil || told == t.sent {
		return nil
	}
	words := t.words(told)
	words.Epoch = epochOf(life, 0)
	if _, err := t.c.Do(ctx, words); err != nil {
		return err
	}
	t.sent = told
	return t.order(ctx, s, told)
}

// epochOf puts the life of consensus before the epoch that was counted within it:
// two nodes that were parted have both counted, and whose life yielded must not
// have the higher number.
func epochOf(life uint32, e cluster.Epoch) uint64 { return uint64(life)<<32 | uint64(uint32(e)) }

// words is what is agreed on, as this copy sees it.
func (m *mirror) words(a *state.Mirror) control.Request {
	self, peer := m.d.o.Node, m.peer()
	r := control.Request{Do: control.Told, Paused: a.Paused != nil}
	r.Set = &control.Set{Self: a.Has(self), Peer: a.Has(peer), Rev: a.Rev}
	switch {
	case a.Victim == "":
	case a.Victim == self:
		r.Victim = control.VictimSelf
	case a.Victim == peer:
		r.Victim = control.VictimPeer
	}
	return r
}

func (m *mirror) peer() cluster.NodeName {
	if s := m.wanted(); s != nil {
		return cluster.NodeName(s.Peer)
	}
	s, err := control.ReadSpec(m.dir)
	if err != nil {
		return ""
	}
	return cluster.NodeName(s.Peer)
}

// follows says whether the process has to end, or to start anew, for what the
// file says now.
func (t *talk) follows(s control.Status) (quit bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spec == nil {
		return s.Role != roleActive, nil
	}
	old, err := control.ReadSpec(t.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if err := t.writeSpec(); err != nil {
		return false, err
	}
	now, err := control.ReadSpec(t.dir)
	return !reflect.DeepEqual(old, now), err
}

// quit ends the process, and waits until it is gone.
func (t *talk) quit(ctx context.Context) error {
	if _, err := t.c.Do(ctx, control.Request{Do: control.Quit}); err != nil && control.CodeOf(err) != "" {
		return err
	}
	select {
	case <-t.c.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for its end: %w", ctx.Err())
	}
}

// settleIce brings a process that started anew, or was out of reach meanwhile, to
// be frozen or not as the file says.
func (t *talk) settleIce(ctx context.Context, s control.Status) error {
	if s.Frozen == t.isFrozen() {
		return nil
	}
	select {
	case t.ice <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-t.ice }()
	do := control.Thaw
	if t.isFrozen() {
		do = control.Freeze
	}
	_, err := t.c.Do(ctx, control.Request{Do: do})
	if control.CodeOf(err) == control.NotActive {
		return nil
	}
	return err
}

// order has an order carried out that this copy sees for the first time. Every
// copy notes it, the active one carries it out; of an order to copy the other one
// hears too, because its disk may have failed and is to be tried again.
func (t *talk) order(ctx context.Context, s control.Status, a *state.Mirror) error {
	seen, known := t.seenOrder()
	serial := uint64(0)
	if a.Order != nil {
		serial = a.Order.Serial
	}
	if known && serial <= seen {
		return nil
	}
	if copying := a.Order != nil && (a.Order.Kind == state.OrderFull || a.Order.Kind == state.OrderResync); known && a.Order != nil && (s.Role == roleActive || copying) {
		r := control.Request{Do: control.Copy}
		switch a.Order.Kind {
		case state.OrderFull:
			r.Thorough = true
		case state.OrderVerify:
			r.Do = control.Verify
		case state.OrderVerifyRepair:
			r.Do, r.Thorough = control.Verify, true
		case state.OrderGrow:
			r.Do = control.Grow
		}
		_, err := t.c.Do(ctx, r)
		switch {
		case control.CodeOf(err) != "":
			t.d.notice(t.groupName(), t.name, cluster.LevelWarn, "mirror-order-failed", "", "What %s ordered of mirror disk %s (%s) is not done: %v.", a.Order.Author, t.name, a.Order.Kind, err)
		case err != nil:
			return err
		}
	}
	if err := renameio.WriteFile(t.file(fileOrder), []byte(strconv.FormatUint(serial, 10)), 0o600); err != nil {
		return fmt.Errorf("keep which order was carried out: %w", err)
	}
	return nil
}

func (m *mirror) seenOrder() (serial uint64, known bool) {
	data, err := os.ReadFile(m.file(fileOrder))
	if err != nil {
		return 0, false
	}
	serial, err = strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	return serial, err == nil
}

// kept says whether a keeper is at work.
func (m *mirror) kept() bool { return locked(m.file(control.FileKeeper)) }

// reach returns a connection to the process: that of run, or one for the moment.
func (m *mirror) reach(ctx context.Context) (c *control.Client, release func(), err error) {
	m.mu.Lock()
	c = m.client
	m.mu.Unlock()
	if c != nil {
		select {
		case <-c.Done():
		default:
			return c, func() {}, nil
		}
	}
	c, err = control.Dial(ctx, m.socket(), func(control.Message) {})
	if err != nil {
		return nil, nil, err
	}
	return c, func() { _ = c.Close() }, nil
}

// errSilent: the process did not even say how it is.
var errSilent = errors.New("its process does not answer")

// errGone: no process serves the mirror disk, and none will.
var errGone = errors.New("no process serves it")

// do asks the process for something that may be asked for twice, and begins anew
// where the process does so, within the time of ctx. errGone if nobody would start
// it.
func (m *mirror) do(ctx context.Context, r control.Request) (control.Message, error) {
	for {
		c, release, err := m.reach(ctx)
		if err == nil {
			var a control.Message
			a, err = c.Do(ctx, r)
			release()
			if err == nil || control.CodeOf(err) != "" || isAnswer(err) {
				return a, err
			}
		}
		m.mu.Lock()
		running := m.running
		m.mu.Unlock()
		if !running && !m.kept() {
			return control.Message{}, errGone
		}
		select {
		case <-ctx.Done():
			return control.Message{}, fmt.Errorf("its process does not answer%s: %w", m.lastWords(), ctx.Err())
		case <-time.After(firstPause):
		}
	}
}

func isAnswer(err error) bool {
	var e *control.Error
	return errors.As(err, &e)
}

// lastWords returns why the process ended last, or the end of its log, for people.
func (m *mirror) lastWords() string {
	data, err := os.ReadFile(m.logFile().Path)
	if err != nil {
		return ""
	}
	data = data[max(0, len(data)-script.TailSize):]
	if i := bytes.LastIndex(data, []byte("\nerror: ")); i >= 0 {
		why, _, _ := bytes.Cut(data[i+len("\nerror: "):], []byte("\n"))
		return fmt.Sprintf(" (%.300s)", why)
	}
	r := script.Result{Tail: data}
	if r.LastLine() == "" {
		return ""
	}
	return fmt.Sprintf(" (the end of %s: %.300s)", m.logFile().Path, r.LastLine())
}

func query(ctx context.Context, c *control.Client) (control.Status, error) {
	a, err := c.Do(ctx, control.Request{Do: control.Query})
	if err != nil {
		return control.Status{}, err
	}
	if a.Status == nil {
		return control.Status{}, errors.New("the process of the mirror disk says nothing of itself")
	}
	return *a.Status, nil
}

// look asks the process for its status.
func (m *mirror) look(ctx context.Context) (control.Status, error) {
	a, err := m.do(ctx, control.Request{Do: control.Query})
	switch {
	case err != nil:
		return control.Status{}, err
	case a.Status == nil:
		return control.Status{}, errors.New("its process says nothing of itself")
	}
	return *a.Status, nil
}

// leave ends the process of a copy that is not active.
func (m *mirror) leave(ctx context.Context) error {
	c, err := control.Dial(ctx, m.socket(), func(control.Message) {})
	if err != nil {
		return nil // there is none
	}
	defer c.Close()
	s, err := query(ctx, c)
	if err != nil || s.Role == roleActive {
		return err
	}
	t := talk{mirror: m, c: c}
	return t.quit(ctx)
}

// fileStarted is the file with what is started.
const fileStarted = "started"

// started is kept from before the activation to the end of the stop, for a daemon that
// starts after this one.
type started struct {
	Group  cluster.GroupName `json:"group"`
	Epoch  cluster.Epoch     `json:"epoch"`
	Device string            `json:"device"`          // "" until it is known
	Number uint64            `json:"number"`          // of the device, see stat(2)
	Mount  string            `json:"mount,omitempty"` // the mount point; the file may name another one by now
}

func (m *mirror) keepStarted(s started) error {
	data, err := json.Marshal(s)
	if err == nil {
		err = renameio.WriteFile(m.file(fileStarted), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep what is started: %w", err)
	}
	return nil
}

// whatStarted returns what is started; nil: nothing.
func (m *mirror) whatStarted() (*started, error) {
	data, err := os.ReadFile(m.file(fileStarted))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	s := &started{}
	if err == nil {
		err = json.Unmarshal(data, s)
	}
	if err != nil {
		return nil, fmt.Errorf("read what is started: %w", err)
	}
	return s, nil
}

// guard has failures of an active copy told from now on.
func (m *mirror) guard(s started) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := activation{s.Group, s.Epoch, s.Device}
	if m.active == nil || *m.active != a {
		m.active, m.failure, m.lost = &a, "", false
	}
}

// unguard ends that.
func (m *mirror) unguard() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active = nil
}

// forget removes a file of the directory.
func (m *mirror) forget(name string) error {
	if err := os.Remove(m.file(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget about a mirror disk: %w", err)
	}
	return nil
}

func (d *Driver) notice(g cluster.GroupName, r cluster.ResourceName, l cluster.Level, code string, cause cluster.EventID, format string, args ...any) {
	d.o.Notice(resource.Notice{Level: l, Code: code, Text: fmt.Sprintf(format, args...), Group: g, Resource: r, Cause: cause})
}
