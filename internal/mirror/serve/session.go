package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tasuki-ha/tasuki/internal/identity"
	"github.com/tasuki-ha/tasuki/internal/mirror/disk"
	"github.com/tasuki-ha/tasuki/internal/mirror/link"
	"github.com/tasuki-ha/tasuki/internal/mirror/replica"
	"github.com/tasuki-ha/tasuki/internal/mirror/wire"
)

const (
	dataConns   = 4               // in sync mode; in async mode one, which keeps the order
	smallMost   = 16 << 10        // bytes of data that go over the first of them
	helloWithin = 3 * time.Second // from dialing to the answer
	redialFirst = 50 * time.Millisecond
	redialMost  = 500 * time.Millisecond
	controlMost = 1024 // frames that wait to be sent on the control connection
)

// session is one control connection to the other copy and the data connections
// beside it.
type session struct {
	link  uint64 // its number for the core here
	epoch uint64 // of every frame
	id    uint64 // random, the same on all connections
	size  int64  // what ranges are checked against
	out   chan framed
	heard atomic.Int64 // when the latest frame came, by Server.now
	acks  atomic.Uint64
	over  chan struct{}
	once  sync.Once

	control *link.Conn
	mu      sync.Mutex
	data    []*link.Conn
	load    []atomic.Int32       // what each of data has not been answered yet
	asked   map[uint64]*question // what Data or Sums will answer, by Seq
	zstd    *link.Zstd           // guarded by mu; nil: no compression
}

type framed struct {
	f       wire.Frame
	payload []byte
}

// question is an IO whose answer brings data.
type question struct {
	io   *replica.IO
	sums []byte // of this side, of a Sum
}

func (s *Server) newSession(id uint64, control *link.Conn) *session {
	ses := &session{link: s.links.Add(1), id: id, control: control, out: make(chan framed, controlMost), over: make(chan struct{}), asked: map[uint64]*question{}}
	ses.heard.Store(int64(s.now()))
	return ses
}

// close ends all connections.
func (ses *session) close() {
	ses.once.Do(func() {
		close(ses.over)
		_ = ses.control.Close()
		ses.mu.Lock()
		defer ses.mu.Unlock()
		for _, c := range ses.data {
			_ = c.Close()
		}
	})
}

// worn says whether so much went over a connection that others should take the
// place of all of them.
func (ses *session) worn() bool {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	return slices.ContainsFunc(ses.data, (*link.Conn).Worn)
}

// post sends a frame on the control connection, in order and without waiting. Who
// does not read that many is gone.
func (ses *session) post(f wire.Frame, payload []byte) {
	if ses.epoch != 0 {
		f.Epoch = ses.epoch // as it was greeted, whatever is known since
	}
	f.Payload = uint32(len(payload))
	select {
	case ses.out <- framed{f, payload}:
	default:
		ses.close()
	}
}

// write sends what was posted, and a sign of life now and then.
func (s *Server) write(ses *session, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		var x framed
		select {
		case <-ses.over:
			return
		case x = <-ses.out:
		case <-t.C:
			x.f.Kind = wire.KindPing
		}
		if err := sendFrame(ses.control, x.f, x.payload); err != nil {
			s.lost(ses, err.Error())
			return
		}
	}
}

func sendFrame(c *link.Conn, f wire.Frame, payload []byte) error {
	h := header(f, payload)
	return c.Send(&h, payload)
}

func header(f wire.Frame, payload []byte) (h link.Header) {
	f.Payload = uint32(len(payload))
	f.Put(h[:])
	return h
}

// receive waits for a frame and reads its payload into one of at most
// wire.MaxPayload bytes.
func receive(c *link.Conn, size int64, into []byte) (wire.Frame, []byte, error) {
	var h link.Header
	if err := c.Receive(&h); err != nil {
		return wire.Frame{}, nil, err
	}
	f, err := wire.Parse(h[:], size)
	if err != nil {
		return f, nil, err
	}
	p := into[:min(int(f.Payload), len(into))]
	if int(f.Payload) > len(into) {
		p = make([]byte, f.Payload)
	}
	return f, p, c.ReadPayload(p)
}

// lost tells the core that a session has ended.
func (s *Server) lost(ses *session, why string) {
	s.apart.Store(&why)
	s.step(func(c *replica.Core) { c.Lost(ses.link, why) })
	s.drop(ses)
}

func (s *Server) drop(ses *session) {
	ses.close()
	s.ses.CompareAndSwap(ses, nil)
	s.hurry()
}

func (s *Server) hangUp(link uint64, why string) {
	if ses := s.ses.Load(); ses != nil && ses.link == link {
		s.apart.Store(&why)
		bye := wire.Bye{Text: why}
		go func() {
			_ = sendFrame(ses.control, wire.Frame{Kind: wire.KindBye}, bye.Encode()) // it may be gone already
			s.drop(ses)
		}()
	}
}

// hurry has the other copy dialed now.
func (s *Server) hurry() {
	select {
	case s.dialNow <- struct{}{}:
	default:
	}
}

func (s *Server) conns() int {
	if s.spec.Async {
		return 1
	}
	return dataConns
}

// dial keeps the active copy connected.
func (s *Server) dial(ctx context.Context) {
	pause := redialFirst
	for {
		if s.coreRole() == replica.Active && s.ses.Load() == nil {
			began := s.now()
			err := s.connect(ctx)
			if err == nil {
				pause = redialFirst
			} else if ctx.Err() == nil {
				text := err.Error()
				s.apart.Store(&text)
			}
			if s.now()-began > redialMost {
				pause = redialFirst
			}
		}
		wait := pause
		if s.ses.Load() != nil || s.coreRole() != replica.Active {
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			pause = min(2*pause, redialMost)
		case <-s.dialNow:
			if wait == time.Second {
				pause = redialFirst
			} else {
				select { // not quicker than the pause: who hangs up does so again
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
			}
		}
	}
}

func (s *Server) hello() wire.Hello {
	size, err := s.data.Size()
	s.mu.Lock()
	if err == nil {
		s.core.Measured(size)
	}
	h := s.core.Hello()
	s.mu.Unlock()
	h.Protocol, h.MinProtocol, h.Conns = wire.Protocol, wire.MinProtocol, uint8(s.conns())
	h.Node, h.Peer = s.spec.Node, s.spec.Peer
	return h
}

// connect makes a session with the other copy.
func (s *Server) connect(ctx context.Context) error {
	id, err := identity.Load(s.spec.Identity) // it may have been renewed
	if err != nil {
		return err
	}
	d := link.NewDialer(link.DialOptions{Addresses: s.spec.PeerAddresses, Local: s.spec.Addresses, Port: s.spec.Port, Identity: id, Peer: nodeName(s.spec.Peer)})
	ctx, cancel := context.WithTimeout(ctx, helloWithin+link.HandshakeTimeout)
	defer cancel()
	c, err := d.Dial(ctx)
	if err != nil {
		return err
	}
	h := s.hello()
	h.Session = s.began ^ s.links.Load()<<32
	ses := s.newSession(h.Session, c)
	theirs, err := s.greet(ctx, ses, h)
	if err == nil && !theirs.Active {
		err = s.addData(ctx, d, ses, h)
	}
	if err == nil {
		_, err = wire.Agree(h, theirs)
	}
	if err != nil {
		ses.close()
		return err
	}
	ses.size, ses.epoch = max(h.Size, theirs.Capacity), h.Epoch
	s.ses.Store(ses)
	go s.write(ses, s.spec.PeerTimeout/5)
	go s.readControl(ses)
	for i := range ses.data {
		go s.readAnswers(ses, i)
	}
	s.step(func(c *replica.Core) { c.Connected(ses.link, theirs) })
	return nil
}

// greet sends the greeting on the control connection and reads the answer.
func (s *Server) greet(ctx context.Context, ses *session, h wire.Hello) (wire.Hello, error) {
	stop := context.AfterFunc(ctx, func() { _ = ses.control.Close() })
	defer stop()
	if err := sendFrame(ses.control, wire.Frame{Kind: wire.KindHello, Epoch: h.Epoch}, h.Encode()); err != nil {
		return wire.Hello{}, err
	}
	f, payload, err := receive(ses.control, 0, nil)
	switch {
	case err != nil:
		return wire.Hello{}, err
	case f.Kind == wire.KindBye:
		bye, err := wire.DecodeBye(payload)
		if err != nil {
			return wire.Hello{}, err
		}
		return wire.Hello{}, fmt.Errorf("the copy on %s says: %s", s.spec.Peer, bye.Text)
	case f.Kind != wire.KindHello:
		return wire.Hello{}, fmt.Errorf("the copy on %s answers a greeting with %s", s.spec.Peer, f.Kind)
	}
	return wire.DecodeHello(payload)
}

func (s *Server) addData(ctx context.Context, d *link.Dialer, ses *session, h wire.Hello) error {
	for i := range s.conns() {
		c, err := d.Dial(ctx)
		if err != nil {
			return err
		}
		ses.data = append(ses.data, c)
		h.Conn = uint8(i + 1)
		if err := sendFrame(c, wire.Frame{Kind: wire.KindHello, Epoch: h.Epoch}, h.Encode()); err != nil {
			return err
		}
	}
	ses.load = make([]atomic.Int32, len(ses.data))
	if !s.spec.Compress {
		return nil
	}
	z, err := link.NewZstd(wire.MaxData)
	ses.zstd = z
	return err
}

// readControl reads the control connection of either side to its end.
func (s *Server) readControl(ses *session) {
	buf := make([]byte, 64<<10+link.Overhead)
	for {
		f, payload, err := receive(ses.control, ses.size, buf)
		if err == nil {
			ses.heard.Store(int64(s.now()))
			err = s.control(ses, f, payload)
		}
		if err != nil {
			s.lost(ses, err.Error())
			return
		}
	}
}

func (s *Server) control(ses *session, f wire.Frame, payload []byte) (err error) {
	switch f.Kind {
	case wire.KindPing:
		ses.post(wire.Frame{Kind: wire.KindPong, Seq: f.Seq}, nil)
	case wire.KindPong:
	case wire.KindBye:
		bye, err := wire.DecodeBye(payload)
		if err != nil {
			return err
		}
		return errors.New("the other side ends it: " + bye.Text)
	case wire.KindAck:
		s.step(func(c *replica.Core) { c.PeerDone(ses.link, f.Seq, f.Code) })
	default:
		if f.Flags&wire.Compressed != 0 {
			return fmt.Errorf("a compressed %s on the control connection", f.Kind)
		}
		s.step(func(c *replica.Core) { err = c.Frame(ses.link, f, payload) })
	}
	return err
}

// send gives an IO to the other copy. What has to be read from the local disk
// before has a goroutine.
func (s *Server) send(e *replica.Effect) {
	ses := s.ses.Load()
	if ses == nil || ses.link != e.Link {
		return // the core hears of the loss
	}
	switch io := e.IO; io.Op {
	case replica.Write:
		s.sendIO(ses, io, wire.KindWrite, io.Tag.(*job).data(io))
	case replica.Zero:
		s.sendIO(ses, io, wire.KindZero, nil)
	case replica.Flush:
		s.sendIO(ses, io, wire.KindFlush, nil)
	case replica.Read:
		ses.ask(io, nil)
		s.sendIO(ses, io, wire.KindRead, nil)
	case replica.Copy, replica.Sum:
		if s.spec.Async {
			s.sendCopy(ses, io) // it has its place in the order
		} else {
			go s.sendCopy(ses, io)
		}
	}
}

// ask notes that the answer to an IO brings data.
func (ses *session) ask(io *replica.IO, sums []byte) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.asked[io.Seq] = &question{io, sums}
}

func (ses *session) answered(seq uint64) *question {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	q := ses.asked[seq]
	delete(ses.asked, seq)
	return q
}

// sendCopy reads a range and copies it, or has it compared.
func (s *Server) sendCopy(ses *session, io *replica.IO) {
	b := s.buffers.Get()
	defer s.buffers.Put(b)
	p := b[:io.Len]
	if _, err := s.data.ReadAt(p, io.Off); err != nil {
		go s.step(func(c *replica.Core) { c.Unreadable(io, err.Error()) }) // in async mode this holds what a step may wait for
		return
	}
	switch {
	case io.Op == replica.Sum:
		ses.ask(io, wire.AppendSums(nil, p))
		s.sendIO(ses, io, wire.KindSum, nil)
	case allZero(p):
		s.sendIO(ses, io, wire.KindCopyZero, nil)
	default:
		s.sendIO(ses, io, wire.KindCopy, p)
	}
}

func allZero(p []byte) bool { return bytes.Equal(p, disk.ZeroBytes(len(p))) }

func (s *Server) sendIO(ses *session, io *replica.IO, kind wire.Kind, payload []byte) {
	f := wire.Frame{Kind: kind, Epoch: ses.epoch, Seq: io.Seq, Offset: io.Off, Length: uint32(io.Len)}
	if io.FUA && (kind == wire.KindWrite || kind == wire.KindZero) {
		f.Flags = wire.FUA
	}
	c := ses.data[ses.pick(io.Len)]
	var err error
	if ses.zstd != nil && len(payload) > 0 {
		ses.mu.Lock()
		if small, better := ses.zstd.Compress(payload); better {
			f.Flags |= wire.Compressed
			err = sendFrame(c, f, small)
		} else {
			err = sendFrame(c, f, payload)
		}
		ses.mu.Unlock()
	} else {
		err = sendFrame(c, f, payload)
	}
	if err != nil {
		go s.lost(ses, err.Error())
	}
}

// pick chooses a data connection. What is small goes over the first one: together
// with others, answered together, and behind nothing large. What is large has the one
// with the fewest questions, because to encrypt and to write it takes long.
func (ses *session) pick(n int) int {
	best := 0
	if n > smallMost && len(ses.data) > 1 {
		best = 1
		for i := 2; i < len(ses.load); i++ {
			if ses.load[i].Load() < ses.load[best].Load() {
				best = i
			}
		}
	}
	ses.load[best].Add(1)
	return best
}

// readAnswers reads a data connection of the active copy to its end.
func (s *Server) readAnswers(ses *session, i int) {
	c := ses.data[i]
	buf := disk.Aligned(wire.MaxData + link.Overhead)
	for {
		f, payload, err := receive(c, ses.size, buf)
		if err == nil {
			ses.acks.Add(1)
			ses.load[i].Add(-1)
			err = s.answer(ses, f, payload)
		}
		if err != nil {
			s.lost(ses, err.Error())
			return
		}
	}
}

func (s *Server) answer(ses *session, f wire.Frame, payload []byte) error {
	switch f.Kind {
	case wire.KindAck:
		if f.Code != 0 {
			ses.answered(f.Seq)
		}
	case wire.KindData:
		q := ses.answered(f.Seq)
		if q == nil || f.Flags&wire.Compressed != 0 || len(payload) != q.io.Len {
			return fmt.Errorf("data that was not asked for")
		}
		copy(q.io.Tag.(*job).data(q.io), payload)
	case wire.KindSums:
		q := ses.answered(f.Seq)
		if q == nil || f.Flags&wire.Compressed != 0 || len(payload) != len(q.sums) {
			return fmt.Errorf("sums that were not asked for")
		}
		differ := differing(q, payload)
		s.step(func(c *replica.Core) { c.Compared(differ); c.PeerDone(ses.link, f.Seq, 0) })
		return nil
	default:
		return fmt.Errorf("a %s on a data connection", f.Kind)
	}
	s.step(func(c *replica.Core) { c.PeerDone(ses.link, f.Seq, f.Code) })
	return nil
}

// differing returns where the sums of both sides differ, as offsets in bytes.
func differing(q *question, theirs []byte) (out []int64) {
	for i := 0; i < len(theirs); i += wire.SumSize {
		if !bytes.Equal(theirs[i:i+wire.SumSize], q.sums[i:i+wire.SumSize]) {
			out = append(out, q.io.Off+int64(i/wire.SumSize)*wire.SumBlock)
		}
	}
	return out
}

// progress sees whether the other side is alive and its disk works.
type progress struct {
	ses   *session
	acks  uint64
	since time.Time
}

// hangsAfter is how many times the time-out of a silent copy its disk may take for
// one write.
const hangsAfter = 10

// look returns why the session has to end, or "". left is how many IOs wait for
// the other side.
func (p *progress) look(ses *session, now time.Duration, left int, timeout time.Duration) string {
	if d := now - time.Duration(ses.heard.Load()); d > timeout {
		return fmt.Sprintf("it has been silent for %s", d.Round(time.Millisecond))
	}
	acks := ses.acks.Load()
	if p.ses != ses || left == 0 || acks != p.acks {
		p.ses, p.acks, p.since = ses, acks, time.Now()
	}
	if d := time.Since(p.since); d > hangsAfter*timeout {
		return fmt.Sprintf("its disk has confirmed nothing for %s", d.Round(100*time.Millisecond))
	}
	return ""
}
