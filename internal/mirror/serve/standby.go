package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/link"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

// renewedEvery is how often it is looked whether the node's certificate was
// renewed.
const renewedEvery = 30 * time.Second

// accept listens for the other copy until ctx ends; with another certificate it
// listens anew.
func (s *Server) accept(ctx context.Context) error {
	for {
		stamp := s.identityStamp()
		id, err := identity.Load(s.spec.Identity)
		if err != nil {
			return err
		}
		err = s.acceptAs(ctx, id, stamp)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.log.Warn("the other copy cannot be listened for", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
}

// identityStamp changes when the identity is written anew.
func (s *Server) identityStamp() (latest time.Time) {
	files, _ := filepath.Glob(filepath.Join(s.spec.Identity, "*"))
	for _, f := range files {
		if st, err := os.Stat(f); err == nil && st.ModTime().After(latest) {
			latest = st.ModTime()
		}
	}
	return latest
}

func (s *Server) acceptAs(ctx context.Context, id *identity.Identity, stamp time.Time) error {
	l, err := link.Listen(ctx, link.ListenOptions{Addresses: s.spec.Addresses, Port: s.spec.Port, Identity: id, Peer: nodeName(s.spec.Peer), From: s.spec.PeerAddresses, Log: s.log})
	if err != nil {
		return err
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for t := time.NewTicker(renewedEvery); ; {
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
				if s.identityStamp() != stamp {
					cancel()
				}
			}
		}
	}()
	for {
		c, err := l.Accept(ctx)
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			if err := s.receive(c); err != nil {
				s.log.Info("a connection of the other copy has ended", "from", c.Remote().String(), "error", err)
			}
		}()
	}
}

// receive reads the greeting of a connection and gives it its part.
func (s *Server) receive(c *link.Conn) error {
	timer := time.AfterFunc(helloWithin, func() { _ = c.Close() })
	f, payload, err := receive(c, 0, nil)
	timer.Stop()
	if err == nil && f.Kind != wire.KindHello {
		err = fmt.Errorf("it begins with %s", f.Kind)
	}
	var h wire.Hello
	if err == nil {
		h, err = wire.DecodeHello(payload)
	}
	if err != nil {
		_ = c.Close()
		return err
	}
	if h.Conn == 0 {
		return s.receiveControl(c, h)
	}
	return s.receiveData(c, h)
}

// receiveControl begins a session of the active copy.
func (s *Server) receiveControl(c *link.Conn, h wire.Hello) error {
	mine := s.hello()
	if _, err := wire.Agree(mine, h); err != nil {
		return s.refuse(c, err)
	}
	if h.Node != s.spec.Peer || h.Peer != s.spec.Node {
		return s.refuse(c, fmt.Errorf("it is the copy of %s for %s, and this is that of %s for %s: the cluster files differ", h.Node, h.Peer, s.spec.Node, s.spec.Peer))
	}
	if mine.Active {
		err := sendFrame(c, wire.Frame{Kind: wire.KindHello, Epoch: mine.Epoch}, mine.Encode())
		return errors.Join(err, c.Close())
	}
	ses := s.newSession(h.Session, c)
	ses.size, ses.epoch = max(mine.Capacity, h.Size), h.Epoch
	ready := make(chan struct{})
	var err error
	s.step(func(core *replica.Core) {
		err = core.Greeted(ses.link, h, func() { close(ready) })
		if err == nil {
			if old := s.ses.Swap(ses); old != nil {
				go old.close()
			}
		}
	})
	if err != nil {
		return s.refuse(c, err)
	}
	select {
	case <-ready:
	case <-ses.over:
		return errors.New("another session has begun")
	}
	mine = s.hello()
	ses.post(wire.Frame{Kind: wire.KindHello, Epoch: mine.Epoch}, mine.Encode())
	go s.write(ses, s.spec.PeerTimeout/5)
	s.apart.Store(nil)
	s.readControl(ses)
	return nil
}

func (s *Server) refuse(c *link.Conn, why error) error {
	bye := wire.Bye{Text: why.Error()}
	return errors.Join(why, sendFrame(c, wire.Frame{Kind: wire.KindBye}, bye.Encode()), c.Close())
}

// receiveData carries out what comes over a data connection, one frame after the
// other: in async mode that is the order in which the active copy wrote.
func (s *Server) receiveData(c *link.Conn, h wire.Hello) error {
	ses := s.ses.Load()
	if ses == nil || ses.id != h.Session {
		return errors.Join(errors.New("it belongs to no session"), c.Close())
	}
	if h.Conn > buffers/2 { // each holds a buffer while it waits
		return errors.Join(fmt.Errorf("it is number %d of the data connections, and there may be %d", h.Conn, buffers/2), c.Close())
	}
	ses.mu.Lock()
	ses.data = append(ses.data, c)
	ses.mu.Unlock()
	select {
	case <-ses.over: // it was closed before this connection was added
		_ = c.Close()
	default:
	}
	w := &worker{s: s, ses: ses, conn: c}
	defer w.close()
	err := w.run()
	s.lost(ses, err.Error())
	return err
}

// worker carries out the frames of one data connection.
type worker struct {
	s    *Server
	ses  *session
	conn *link.Conn
	buf  []byte // of the frame at hand; nil: it went with the last one
	out  []byte // of an answer with data
	pack []byte // a compressed payload
	zstd *link.Zstd
}

func (w *worker) close() {
	_ = w.conn.Close()
	if w.buf != nil {
		w.s.buffers.Put(w.buf)
	}
	if w.zstd != nil {
		w.zstd.Close()
	}
}

func (w *worker) run() error {
	for {
		if w.buf == nil { // else it is used again while it is warm
			w.buf = w.s.buffers.Get()
		}
		f, data, err := w.next()
		if err != nil {
			return err
		}
		w.s.mu.Lock()
		no := w.s.core.Accept(w.ses.link, f)
		w.s.mu.Unlock()
		if no == 0 && w.begin(f, data) {
			continue
		}
		if no == 0 {
			no = w.executed(f, w.do(f, data))
		}
		if err := w.answer(f, no); err != nil {
			return err
		}
		if w.s.data.FlushExpected() { // it is made while the answer is on its way
			if err := w.conn.Flush(); err != nil {
				return err
			}
			w.s.data.FlushEarly()
		}
	}
}

// begin has a write carried out without this thread, which reads the next frame
// meanwhile, if it is one of many: not in async mode, which keeps the order.
func (w *worker) begin(f wire.Frame, data []byte) bool {
	if w.s.spec.Async || f.Kind != wire.KindWrite || f.Length > manyAtOnce || !w.s.data.Busy() && !w.conn.More() {
		return false
	}
	buf := w.buf
	began := w.s.data.Start(disk.Start{Write: true, P: data, Off: f.Offset, Durable: f.Flags&wire.FUA != 0, Done: func(err error) {
		_ = w.answer(f, w.executed(f, err)) // where the connection has ended nobody waits for it
		w.s.owe(w.conn)
		w.s.buffers.Put(buf)
	}})
	if began {
		w.buf = nil
	}
	return began
}

func (w *worker) executed(f wire.Frame, err error) uint16 {
	no := errnoOf(err)
	w.s.step(func(c *replica.Core) { c.Executed(f, no) })
	return no
}

// owe notes that a connection has answers to send, for settled.
func (s *Server) owe(c *link.Conn) {
	s.owing.Lock()
	defer s.owing.Unlock()
	if !slices.Contains(s.owed, c) {
		s.owed = append(s.owed, c)
	}
}

// settled sends the answers to all writes that have ended by now. Nothing ends
// meanwhile.
func (s *Server) settled() {
	for i, c := range s.owed {
		_ = c.Flush() // its reader hears of the end
		s.owed[i] = nil
	}
	s.owed = s.owed[:0]
}

// next reads a frame and its data.
func (w *worker) next() (wire.Frame, []byte, error) {
	var h link.Header
	if err := w.conn.Receive(&h); err != nil {
		return wire.Frame{}, nil, err
	}
	f, err := wire.Parse(h[:], w.ses.size)
	if err != nil {
		return f, nil, err
	}
	if f.Flags&wire.Compressed == 0 {
		p := w.buf[:f.Payload]
		return f, p, w.conn.ReadPayload(p)
	}
	if w.zstd == nil {
		w.pack = make([]byte, wire.MaxData+link.Overhead)
		if w.zstd, err = link.NewZstd(wire.MaxData); err != nil {
			return f, nil, err
		}
	}
	if err := w.conn.ReadPayload(w.pack[:f.Payload]); err != nil {
		return f, nil, err
	}
	p := w.buf[:f.Unpacked()]
	return f, p, w.zstd.Decompress(p, w.pack[:f.Payload])
}

func (w *worker) do(f wire.Frame, data []byte) error {
	d := w.s.data
	switch f.Kind {
	case wire.KindWrite, wire.KindCopy:
		return d.WriteAt(data, f.Offset, f.Flags&wire.FUA != 0)
	case wire.KindZero, wire.KindCopyZero:
		err := d.Zero(f.Offset, int64(f.Length))
		if err == nil && f.Flags&wire.FUA != 0 {
			err = d.Flush()
		}
		return err
	case wire.KindFlush:
		return d.Flush()
	case wire.KindRead, wire.KindSum:
		p := w.buf[:f.Length]
		_, err := d.ReadAt(p, f.Offset)
		w.out = p
		if f.Kind == wire.KindSum && err == nil {
			w.out = wire.AppendSums(nil, p)
		}
		return err
	}
	return fmt.Errorf("a %s on a data connection", f.Kind)
}

// answer leaves the answer with the connection: it goes out together with others
// when the frames that are here already are done.
func (w *worker) answer(f wire.Frame, no uint16) error {
	a, payload := wire.Frame{Kind: wire.KindAck, Seq: f.Seq, Epoch: f.Epoch, Code: no}, []byte(nil)
	switch {
	case no != 0:
	case f.Kind == wire.KindRead:
		a.Kind, a.Offset, a.Length, payload = wire.KindData, f.Offset, f.Length, w.out
	case f.Kind == wire.KindSum:
		a.Kind, a.Offset, a.Length, payload = wire.KindSums, f.Offset, f.Length, w.out
	}
	h := header(a, payload)
	return w.conn.SendMore(&h, payload)
}
