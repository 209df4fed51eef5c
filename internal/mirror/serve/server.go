package serve

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse/keep"
	"github.com/tasuki-ha/tasuki/internal/mirror/link"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

const (
	tickEvery   = 100 * time.Millisecond
	logExtents  = 1024            // of 4 MiB each in the activity log
	manyAtOnce  = 64 << 10        // bytes of an IO: a larger one is worth a thread
	buffers     = 16              // a copy under way has a few; of a standby copy each frame under way has one, and each connection
	copyWindow  = 8 << 20         // bytes under way to a copy that nobody waits for
	startWithin = 5 * time.Second // a copy that becomes active, but for the wait for the other side
)

// Options of Run.
type Options struct {
	Dir     string                                  // of the mirror disk, see control.Dir
	Keeper  keep.Holder                             // of the front end's descriptors
	Front   func(front.Device) (front.Front, error) // in place of what the Spec names; may be nil
	Log     *slog.Logger
	Version string
}

// Server is one process.
type Server struct {
	opt  Options
	spec control.Spec
	dir  string
	log  *slog.Logger
	ctx  context.Context

	data    *disk.Measured
	buffers *disk.Pool // of wire.MaxData and link.Overhead each, for what goes between the two copies
	meta    *metaDevice
	faults  [2]*disk.FaultDisk
	start   time.Time
	began   uint64 // random, of this process

	mu    sync.Mutex // of core
	core  *replica.Core
	moved chan struct{} // closed when the role changes; guarded by mu

	deeds   sync.Mutex // one of Activate, Deactivate and the like at a time
	front   front.Front
	best    func() string // bestFront, found out once
	path    atomic.Pointer[string]
	active  atomic.Uint64 // epoch; 0: not active
	socket  *control.Server
	tell    chan control.Message
	wishing chan struct{} // capacity 1

	ses     atomic.Pointer[session]
	links   atomic.Uint64
	sending sync.Mutex // orders what is sent in async mode
	apart   atomic.Pointer[string]
	split   atomic.Pointer[string]
	dialNow chan struct{} // capacity 1

	owing sync.Mutex
	owed  []*link.Conn // that have answers to send; guarded by owing, but for settled
	hung  progress
	speed speedometer // guarded by mu

	reads, writes, readBytes, writeBytes atomic.Uint64
}

// Run serves the mirror disk of a directory until ctx ends.
func Run(ctx context.Context, o Options) error {
	s, err := open(o)
	if err != nil {
		return err
	}
	defer s.close()
	g, life := errgroup.WithContext(ctx)
	s.ctx = life
	if s.socket, err = control.Listen(o.Dir, s.handle, s.greeting); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(o.Dir, control.FileFrozen)); err == nil {
		s.step((*replica.Core).Freeze)
	}
	s.step(func(*replica.Core) {}) // what it begins with
	if s.coreRole() == replica.Active {
		if err := s.attach(); err != nil {
			return fmt.Errorf("take up the block device that was active: %w", err)
		}
	}
	g.Go(func() error { return s.socket.Run(life) })
	g.Go(func() error { return s.accept(life) })
	g.Go(func() error { s.dial(life); return nil })
	g.Go(func() error { s.tick(life); return nil })
	if s.opt.Front == nil {
		g.Go(func() error { s.best(); return nil }) // before an application waits for it
	}
	g.Go(func() error { s.carryWords(life); return nil })
	for i, name := range []string{"data", "meta"} {
		if f := s.faults[i]; f != nil {
			g.Go(func() error {
				f.Follow(life, filepath.Join(o.Dir, control.FileFault+"."+name), func(err error) { s.log.Warn("a fault that is not one", "error", err) })
				return nil
			})
		}
	}
	err = g.Wait()
	if ses := s.ses.Load(); ses != nil {
		ses.close()
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func open(o Options) (*Server, error) {
	spec, err := control.ReadSpec(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{
		opt: o, spec: spec, dir: o.Dir, log: o.Log, start: time.Now(), began: rand.Uint64(), moved: make(chan struct{}),
		tell: make(chan control.Message, 256), wishing: make(chan struct{}, 1), dialNow: make(chan struct{}, 1),
		best: sync.OnceValue(bestFront), buffers: disk.NewPool(wire.MaxData+link.Overhead, buffers),
	}
	s.spec.PeerTimeout = cmp.Or(s.spec.PeerTimeout, time.Second)
	if _, err := identity.Load(spec.Identity); err != nil {
		return nil, err
	}
	d, err := disk.Open(spec.Data, disk.Options{Buffered: spec.Lab, Queue: true, Settled: s.settled})
	if err != nil {
		return nil, fmt.Errorf("data device: %w", err)
	}
	m, err := disk.Open(spec.Meta, disk.Options{Buffered: spec.Lab})
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("meta device: %w", err)
	}
	if spec.Lab {
		s.faults = [2]*disk.FaultDisk{disk.Faulty(d), disk.Faulty(m)}
		d, m = s.faults[0], s.faults[1]
	}
	s.data, s.meta = disk.Measure(d), &metaDevice{d: m, path: spec.Meta}
	if err := s.makeCore(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *Server) close() {
	_ = s.data.Close()
	_ = s.meta.d.Close()
}

// makeCore reads the meta device. An Activation that an earlier process left says
// that this copy is active, and the kernel's requests wait for it.
func (s *Server) makeCore() error {
	l, err := s.meta.load()
	if err != nil {
		return err
	}
	for _, text := range l.worn {
		s.say("warn", "mirror-disk-damaged", text)
	}
	capacity, err := s.data.Size()
	if err != nil {
		return err
	}
	o := s.coreOptions(l, capacity)
	if epoch, ok := s.readActive(); ok && !l.blank {
		// The other copy counts until it is known what was agreed on.
		o.Role, o.Epoch, o.Set = replica.Active, epoch, replica.Set{Self: true, Peer: true}
		s.active.Store(epoch)
	}
	if s.core, err = replica.New(o); err != nil {
		return err
	}
	s.core.Tick(s.now(), time.Now().Unix())
	return nil
}

func (s *Server) coreOptions(l *loaded, capacity int64) replica.Options {
	window := int64(copyWindow)
	if s.spec.Async {
		window = s.spec.Queue
	}
	return replica.Options{
		Super: l.super, Marks: l.marks, Worn: len(l.worn) > 0, Log: l.log, Capacity: capacity, SectorSize: uint16(s.data.SectorSize()), Session: s.began, Random: rand.Uint64, Version: s.opt.Version,
		Async: s.spec.Async, Window: window, Patience: s.spec.PeerTimeout, Rate: s.spec.Rate, LogCapacity: logExtents,
		InitialCopy: s.spec.InitialCopy, Policy: replica.Policy(s.spec.SplitBrain),
	}
}

// now is the time of the core: since the start of the process, never 0.
func (s *Server) now() time.Duration { return time.Since(s.start) + 1 }

func (s *Server) coreRole() replica.Role {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Role()
}

// step tells the core something and carries out what follows. What is to be done
// on the local disk is done in goroutines.
func (s *Server) step(f func(*replica.Core)) { s.carry(s.take(f), false) }

// stepHere is step for a thread that may wait for the local disk: the last thing to
// be done there it does itself.
func (s *Server) stepHere(f func(*replica.Core)) { s.carry(s.take(f), true) }

// room is what effects stand in. It is used again, because it would be most of what
// is allocated for a request.
type room struct{ effects []replica.Effect }

var rooms = sync.Pool{New: func() any { return &room{make([]replica.Effect, 0, 4)} }}

// take tells the core something and returns the effects. In async mode it also
// sends, so that what is sent keeps the order of the core.
func (s *Server) take(f func(*replica.Core)) *room {
	r := rooms.Get().(*room)
	s.mu.Lock()
	s.core.Reuse(r.effects)
	f(s.core)
	r.effects = s.core.Take()
	if !s.spec.Async || !sends(r.effects) {
		s.mu.Unlock()
		return r
	}
	s.sending.Lock()
	s.mu.Unlock()
	defer s.sending.Unlock()
	for i := range r.effects {
		if e := &r.effects[i]; e.Do == replica.DoSend {
			s.send(e)
		}
	}
	return r
}

func sends(effects []replica.Effect) bool {
	for i := range effects {
		if effects[i].Do == replica.DoSend {
			return true
		}
	}
	return false
}

// carry carries out effects in their order; here says that this thread may wait
// for the local disk.
func (s *Server) carry(r *room, here bool) {
	var last *replica.IO
	for i := range r.effects {
		e := &r.effects[i]
		switch e.Do {
		case replica.DoLocal:
			if (!here || s.data.Busy()) && s.begin(e.IO) {
				break // else this thread waits for nothing else, and no other one has to be woken
			}
			if last != nil {
				go s.local(last)
			}
			last = e.IO
		case replica.DoSend:
			if !s.spec.Async {
				s.send(e)
			}
		case replica.DoComplete:
			complete(e.IO)
		default:
			s.rare(e)
		}
	}
	clear(r.effects)
	rooms.Put(r)
	switch {
	case last == nil:
	case here:
		s.local(last)
	default:
		go s.local(last)
	}
}

// rare carries out what does not belong to the way of a request.
func (s *Server) rare(e *replica.Effect) {
	switch e.Do {
	case replica.DoMeta:
		w := e.Meta
		go func() {
			err := s.meta.write(w)
			s.step(func(c *replica.Core) { c.MetaDone(err) })
		}()
	case replica.DoFrame:
		if ses := s.ses.Load(); ses != nil && ses.link == e.Link {
			ses.post(e.Frame, e.Payload)
		}
	case replica.DoHangUp:
		s.hangUp(e.Link, e.Text)
	case replica.DoAsk:
		select {
		case s.wishing <- struct{}{}:
		default:
		}
	case replica.DoRole:
		s.mu.Lock()
		close(s.moved)
		s.moved = make(chan struct{})
		s.mu.Unlock()
		s.hurry()
	case replica.DoFail:
		s.words(control.Message{Fail: fmt.Sprintf("%s; what is written waits until the group runs on %s", e.Text, s.spec.Peer)})
	case replica.DoNotice:
		s.noticed(e.Notice)
	case replica.DoGrown:
		go func() {
			if f := s.attached(); f != nil {
				if err := f.Grown(); err != nil {
					s.log.Error("the kernel was not told of the new size", "error", err)
				}
			}
		}()
	}
}

// noticed passes a line on, and remembers what the status shows.
func (s *Server) noticed(n replica.Notice) {
	switch n.Code {
	case "mirror-disk-split":
		s.split.Store(&n.Text)
	case "mirror-disk-in-sync", "mirror-disk-copy":
		s.split.Store(nil)
	}
	s.say(n.Level, n.Code, n.Text)
}

func (s *Server) say(level, code, text string) {
	s.words(control.Message{Notice: &control.Notice{Level: level, Code: code, Text: text}})
}

// words tells the daemon something; what it does not take is lost.
func (s *Server) words(m control.Message) {
	if m.Notice != nil {
		s.log.Info(m.Notice.Text, "level", m.Notice.Level, "code", m.Notice.Code)
	}
	select {
	case s.tell <- m:
	default:
	}
}

// carryWords brings to the daemon what it is to know, apart from all that must not
// wait.
func (s *Server) carryWords(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-s.tell:
			s.socket.Tell(m)
		case <-s.wishing:
			if m, ok := s.wish(); ok {
				s.socket.Tell(m)
			}
		}
	}
}

// wish is what the core asks for now.
func (s *Server) wish() (control.Message, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.core.Wish()
	if a == nil {
		return control.Message{}, false
	}
	return control.Message{Ask: &control.Ask{Set: control.Set{Self: a.Self, Peer: a.Peer, Rev: a.Rev}, Epoch: s.active.Load(), Why: a.Why}}, true
}

// tick lets time pass for the core, and looks for what hangs.
func (s *Server) tick(ctx context.Context) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		oldest := s.data.Stats().Oldest
		left := 0
		s.step(func(c *replica.Core) {
			c.Tick(s.now(), time.Now().Unix())
			if oldest > s.spec.IOTimeout && s.spec.IOTimeout > 0 {
				c.Stalled(fmt.Sprintf("its disk has not answered for %s", oldest.Round(time.Second)))
			}
			left = c.Unconfirmed()
		})
		if ses := s.ses.Load(); ses != nil {
			if why := s.hung.look(ses, s.now(), left, s.spec.PeerTimeout); why != "" {
				s.lost(ses, why)
			} else if left == 0 && ses.worn() {
				s.lost(ses, "the connections get new keys")
			}
		}
		if n%10 == 0 {
			st := s.status()
			s.words(control.Message{Status: &st})
		}
	}
}

// begin has an IO carried out on the data device, if that can be done without a
// thread that waits. What follows is not sent by the one that tells of the end: a
// send may have to wait, and every other IO with it.
func (s *Server) begin(io *replica.IO) bool {
	if s.spec.Async || io.Len > manyAtOnce || io.Op != replica.Read && io.Op != replica.Write {
		return false
	}
	return s.data.Start(disk.Start{
		Write: io.Op == replica.Write, P: io.Tag.(*job).data(io), Off: io.Off, Durable: io.FUA,
		Done: func(err error) {
			r := s.take(func(c *replica.Core) { c.LocalDone(io, errnoOf(err)) })
			if sends(r.effects) {
				go s.carry(r, false)
			} else {
				s.carry(r, false)
			}
		},
	})
}

// local carries out an IO on the data device. A flush that will follow is made here
// while the other copy is waited for.
func (s *Server) local(io *replica.IO) {
	err := s.onDisk(io)
	s.stepHere(func(c *replica.Core) { c.LocalDone(io, errnoOf(err)) })
	if s.data.FlushExpected() {
		s.data.FlushEarly()
	}
}

func (s *Server) onDisk(io *replica.IO) error {
	switch io.Op {
	case replica.Read:
		_, err := s.data.ReadAt(io.Tag.(*job).data(io), io.Off)
		return err
	case replica.Write:
		return s.data.WriteAt(io.Tag.(*job).data(io), io.Off, io.FUA)
	case replica.Zero:
		if err := s.data.Zero(io.Off, int64(io.Len)); err != nil || !io.FUA {
			return err
		}
		return s.data.Flush()
	case replica.Flush:
		return s.data.Flush()
	}
	return fmt.Errorf("a %s is nothing for a disk", io.Op)
}

// errnoOf returns what the kernel is told.
func errnoOf(err error) uint16 {
	if err == nil {
		return 0
	}
	if e := disk.Errno(err); e != 0 {
		return uint16(e)
	}
	return uint16(syscall.EIO)
}

func nodeName(s string) cluster.NodeName { return cluster.NodeName(s) }
