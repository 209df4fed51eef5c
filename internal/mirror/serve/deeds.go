package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/tasuki-ha/tasuki/internal/mirror/control"
	"github.com/tasuki-ha/tasuki/internal/mirror/front"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/fuse"
	"github.com/tasuki-ha/tasuki/internal/mirror/front/nbd"
	"github.com/tasuki-ha/tasuki/internal/mirror/meta"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
)

// handle carries out a request of the daemon. What may take long does so in a
// goroutine.
func (s *Server) handle(r control.Request, tell func(control.Message)) {
	switch r.Do {
	case control.Activate:
		go func() {
			path, err := s.activate(r)
			tell(answer(path, err))
		}()
	case control.Deactivate:
		go func() { tell(answer("", s.deactivate(r.Force))) }()
	case control.Freeze:
		s.step((*replica.Core).Freeze)
		tell(control.Message{})
	case control.Thaw:
		s.step((*replica.Core).Thaw)
		tell(control.Message{})
	case control.Told:
		s.told(r)
		tell(control.Message{})
	case control.Assigned:
		s.step(func(c *replica.Core) { c.Assigned(r.Epoch) })
		tell(control.Message{})
	case control.Copy, control.Verify, control.Grow:
		tell(answer("", s.order(r)))
	case control.Query:
		st := s.status()
		tell(control.Message{Status: &st})
	case control.Quit:
		tell(control.Message{})
		s.quit()
	default:
		tell(answer("", fmt.Errorf("unknown request %q", r.Do)))
	}
}

// coded is an error that the daemon tells apart.
type coded struct {
	code control.Code
	error
}

func (c coded) Unwrap() error { return c.error }

func answer(path string, err error) control.Message {
	if err == nil {
		return control.Message{Path: path}
	}
	m := control.Message{Error: err.Error()}
	var c coded
	switch {
	case errors.As(err, &c):
		m.Code = c.code
	case errors.Is(err, front.ErrBusy):
		m.Code = control.Busy
	case errors.Is(err, replica.ErrOutOfDate), errors.Is(err, replica.ErrInconsistent):
		m.Code = control.OutOfDate
	case errors.Is(err, replica.ErrFailed):
		m.Code = control.Failed
	case errors.Is(err, replica.ErrOldEpoch):
		m.Code = control.OldEpoch
	case errors.Is(err, replica.ErrNotConstructed):
		m.Code = control.Blank
	}
	return m
}

// greeting is what a daemon that connects is told first.
func (s *Server) greeting() []control.Message {
	st := s.status()
	out := []control.Message{{Status: &st}}
	if m, ok := s.wish(); ok {
		out = append(out, m)
	}
	return out
}

func (s *Server) told(r control.Request) {
	if r.Set == nil {
		return
	}
	victim := map[string]replica.Side{control.VictimSelf: replica.Self, control.VictimPeer: replica.Peer}[r.Victim]
	s.step(func(c *replica.Core) {
		c.Assigned(r.Epoch)
		c.Told(replica.Set{Self: r.Set.Self, Peer: r.Set.Peer, Rev: r.Set.Rev})
		c.Ordered(victim, r.Paused)
	})
}

// activate makes this the active copy and returns its block device.
func (s *Server) activate(r control.Request) (string, error) {
	s.deeds.Lock()
	defer s.deeds.Unlock()
	set := replica.Set{}
	if r.Set != nil {
		set = replica.Set{Self: r.Set.Self, Peer: r.Set.Peer, Rev: r.Set.Rev}
	}
	if s.coreRole() != replica.Active {
		if err := s.promote(r, set); err != nil {
			return "", err
		}
		s.removeLeftover()
	} else if was := s.active.Load(); was == 0 {
		return "", coded{control.Failed, fmt.Errorf("this copy was given up and has not come to its end: %s", s.waitsFor())}
	} else if r.Epoch > was {
		return "", fmt.Errorf("this copy is active in epoch %d still: it was not stopped", was)
	}
	if r.PeerDown {
		s.step((*replica.Core).PeerDown)
	}
	if s.attached() == nil {
		if err := s.attach(); err != nil {
			return "", errors.Join(err, s.demote(true))
		}
	}
	return *s.path.Load(), nil
}

// removeLeftover takes away a block device that an earlier activation left behind:
// what still waits there must not reach this one.
func (s *Server) removeLeftover() {
	if _, found := nbd.Find(s.nbdName()); !found {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, deactivateWithin)
	defer cancel()
	if err := nbd.Remove(ctx, s.nbdName()); err != nil {
		s.log.Warn("a block device that was left behind could not be removed", "error", err)
	}
}

func (s *Server) promote(r control.Request, set replica.Set) error {
	if s.meta.blank && r.Construct {
		if err := s.construct(); err != nil {
			return err
		}
	}
	s.active.Store(r.Epoch)
	var err error
	var moved chan struct{}
	s.step(func(c *replica.Core) {
		moved = s.moved
		err = c.Promote(r.Epoch, set, r.Force)
	})
	if err == nil {
		err = s.await(moved, startWithin)
	}
	if err == nil {
		err = s.writeActive(r.Epoch)
	}
	if err != nil {
		s.active.Store(0)
		return fmt.Errorf("make the copy of %s active: %w", s.spec.Resource, err)
	}
	return nil
}

// await waits until the role changes.
func (s *Server) await(moved chan struct{}, within time.Duration) error {
	select {
	case <-moved:
		return nil
	case <-time.After(within):
		return fmt.Errorf("not done within %s: %s", within, s.waitsFor())
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *Server) waitsFor() string {
	if d := s.data.Stats().Oldest; d > time.Second {
		return fmt.Sprintf("the data device has not answered for %s", d.Round(time.Second))
	}
	return "the meta device, or what the other copy had sent, takes long"
}

// construct makes the first copy of a mirror disk on devices that have none.
func (s *Server) construct() error {
	size, err := s.data.Size()
	if err != nil {
		return err
	}
	room, err := s.meta.d.Size()
	if err != nil {
		return err
	}
	size -= size % 4096
	layout, err := meta.LayoutFor(size, room)
	if err != nil {
		return err
	}
	super := replica.Construct(s.spec.Node, s.spec.Peer, size, layout.BlockShift, randomNumber)
	super.Since = time.Now().Unix()
	if err := s.meta.write(&replica.MetaWrite{Super: &super}); err != nil {
		return fmt.Errorf("meta device %s: %w", s.spec.Meta, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.core
	l, err := s.meta.load()
	if err != nil {
		return err
	}
	c, err := replica.New(s.coreOptions(l, size))
	if err != nil {
		return err
	}
	c.Tick(s.now(), time.Now().Unix())
	c.Assigned(was.Epoch())
	s.core = c
	return nil
}

// attach gives the kernel the block device.
func (s *Server) attach() error {
	f, err := s.newFront()
	if err != nil {
		return err
	}
	path := f.Path()
	s.path.Store(&path)
	s.mu.Lock()
	s.front = f
	s.mu.Unlock()
	go func() {
		if err := f.Serve(); err != nil && s.attached() == f {
			s.log.Error("the block device is not served any more", "device", path, "error", err)
			s.words(control.Message{Fail: "the block device is not served any more: " + err.Error()})
		}
	}()
	return nil
}

// newFront makes the front end that the file names, or the best one that this
// kernel has: one that outlives its process.
func (s *Server) newFront() (front.Front, error) {
	if s.opt.Front != nil {
		return s.opt.Front(device{s})
	}
	kind := s.spec.FrontEnd
	if kind == "" || kind == "auto" {
		kind = s.best()
		if _, found := nbd.Find(s.nbdName()); found {
			kind = "nbd"
		}
	}
	switch kind {
	case "fuse":
		return fuse.Attach(s.ctx, device{s}, s.opt.Keeper, fuse.Options{Name: s.spec.Resource})
	case "nbd":
		o := nbd.Options{Identity: s.nbdName(), Log: s.log}
		if index, found := nbd.Find(o.Identity); found {
			return nbd.Resume(index, device{s}, o)
		}
		return nbd.Attach(device{s}, o)
	}
	return nil, fmt.Errorf("there is no front end %q: auto, fuse, nbd", kind)
}

// bestFront is the front end that this kernel has: one that outlives its process, if
// there is one.
func bestFront() string {
	if fuse.Supported() != nil && nbd.Available() == nil {
		return "nbd"
	}
	return "fuse"
}

func (s *Server) nbdName() string { return control.NBDIdentity(s.spec.Resource) }

func (s *Server) attached() front.Front {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.front
}

// deactivateWithin bounds the taking away of a block device that nothing uses.
const deactivateWithin = 20 * time.Second

// deactivate takes the block device away and ends the active part.
func (s *Server) deactivate(force bool) error {
	if force { // before the lock: what holds it may wait for the kernel, and the kernel for the other copy
		if f := s.attached(); f != nil {
			if err := f.Abort(); err != nil {
				s.log.Warn("the block device could not be aborted", "error", err)
			}
		}
		s.step(func(c *replica.Core) {
			if c.Role() == replica.Active {
				c.Abort()
			}
		})
	}
	s.deeds.Lock()
	defer s.deeds.Unlock()
	if f := s.attached(); f != nil {
		ctx, cancel := context.WithTimeout(s.ctx, deactivateWithin)
		defer cancel()
		if err := f.Detach(ctx); err != nil {
			return err
		}
		s.mu.Lock()
		s.front = nil
		s.mu.Unlock()
		s.path.Store(nil)
	}
	return s.demote(force)
}

// giveUpAfter is how long the end of a copy is waited for whose block device is
// gone by force. What its disk does after that reaches nobody: the copy is not a
// standby one before.
const giveUpAfter = 2 * time.Second

func (s *Server) demote(force bool) error {
	if s.coreRole() != replica.Active {
		return s.endActive()
	}
	var moved chan struct{}
	s.step(func(c *replica.Core) {
		moved = s.moved
		c.Thaw()
		c.Demote()
	})
	within := deactivateWithin
	if force {
		within = giveUpAfter
	}
	err := s.await(moved, within)
	if err != nil && force {
		s.say("warn", "mirror-disk-given-up", fmt.Sprintf("The copy of this node was given up while its disk does not answer (%v). It is a standby again when that has ended.", err))
		err = nil
	}
	if err != nil {
		return fmt.Errorf("end the active part of %s: %w", s.spec.Resource, err)
	}
	return s.endActive()
}

// activation is what an active copy leaves for a process that goes on in its place.
type activation struct {
	Epoch uint64 `json:"epoch"`
}

func (s *Server) writeActive(epoch uint64) error {
	data, err := json.Marshal(activation{epoch})
	if err == nil {
		err = renameio.WriteFile(filepath.Join(s.dir, control.FileActive), data, 0o600)
	}
	return err
}

func (s *Server) readActive() (uint64, bool) {
	data, err := os.ReadFile(filepath.Join(s.dir, control.FileActive))
	if err != nil {
		return 0, false
	}
	var a activation
	return a.Epoch, json.Unmarshal(data, &a) == nil && a.Epoch > 0
}

func (s *Server) endActive() error {
	s.active.Store(0)
	if err := os.Remove(filepath.Join(s.dir, control.FileActive)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// order carries out what an operator wants.
func (s *Server) order(r control.Request) (err error) {
	if s.coreRole() != replica.Active && r.Do != control.Copy {
		return coded{control.NotActive, errors.New("this copy is not active")}
	}
	switch r.Do {
	case control.Copy:
		s.step(func(c *replica.Core) { c.Recopy(r.Thorough) })
		s.hurry()
	case control.Verify:
		s.step(func(c *replica.Core) {
			if !c.Verify(r.Thorough) {
				err = errors.New("the copies are not joined, or are being compared already")
			}
		})
	case control.Grow:
		return s.grow()
	}
	return err
}

// grow takes a larger data device into use.
func (s *Server) grow() error {
	size, err := s.data.Size()
	if err != nil {
		return err
	}
	size -= size % 4096
	room, err := s.meta.d.Size()
	if err != nil {
		return err
	}
	st := s.status()
	s.mu.Lock()
	super := s.core.Status().Super
	s.mu.Unlock()
	switch {
	case size <= st.Size:
		return fmt.Errorf("the data device has %d bytes, and %d of them are in use: enlarge it on both nodes first", size, st.Size)
	case size > meta.MaxSize(room, super.BlockShift):
		return fmt.Errorf("the meta device has room for a mirror disk of %d bytes, and the data device has %d", meta.MaxSize(room, super.BlockShift), size)
	}
	s.step(func(c *replica.Core) {
		c.Measured(size)
		err = c.Grow(size)
	})
	return err
}

// quit ends a standby's process for good, and an active copy's so that its keeper
// starts it again.
func (s *Server) quit() {
	if s.active.Load() != 0 {
		s.log.Info("the process starts anew, as it was told")
		os.Exit(exitAgain)
	}
	s.log.Info("the process ends, as it was told")
	os.Exit(0)
}

// exitAgain is the status with which a process ends that is to be started again.
const exitAgain = 75
