package heartbeat

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// ExporterLabel is the label under which a TLS connection exports the secret of
// a key (RFC 8446, section 7.5), without context, SecretSize bytes.
const (
	ExporterLabel = "EXPORTER-tasuki-heartbeat"
	SecretSize    = 32
)

// Key is what two nodes derived from one connection. It prints without its
// secret.
type Key struct {
	Secret []byte // SecretSize bytes of the connection's exporter
	Dialer bool   // this node dialed; it has the key only once the other end has it
}

func (k Key) String() string {
	if k.Dialer {
		return "heartbeat key of the dialer"
	}
	return "heartbeat key of the acceptor"
}

// GoString keeps the secret out of what %#v prints.
func (k Key) GoString() string { return k.String() }

// LogValue keeps the secret out of logs.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// A box is a key at work: it seals for one direction and opens the other.
type box struct {
	id         uint64
	peer       *peer
	order      uint64        // of AddKey
	used       atomic.Uint64 // Transport.clock when it was last sent or received under
	confirmed  atomic.Bool   // the other end is known to have it
	count      atomic.Uint64
	seal, open cipher.AEAD

	mu   sync.Mutex
	seen *Window
}

// newBox derives the id and the keys of both directions.
func newBox(k Key) (*box, error) {
	if len(k.Secret) != SecretSize {
		return nil, fmt.Errorf("a secret of %d bytes for heartbeats, want %d", len(k.Secret), SecretSize)
	}
	out, err := hkdf.Key(sha256.New, k.Secret, nil, "tasuki heartbeat 1: id, dialer to acceptor, acceptor to dialer", 8+32+32)
	if err != nil {
		return nil, fmt.Errorf("derive a key for heartbeats: %w", err)
	}
	dialer, err1 := newAEAD(out[8:40])
	acceptor, err2 := newAEAD(out[40:72])
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("derive a key for heartbeats: %w", err)
	}
	b := &box{id: binary.BigEndian.Uint64(out), seal: dialer, open: acceptor, seen: NewWindow(windowSize)}
	if !k.Dialer {
		b.seal, b.open = acceptor, dialer
	}
	b.confirmed.Store(k.Dialer)
	return b, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(c)
}

// fresh notes the counter of a datagram that was opened.
func (b *box) fresh(counter uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen.Accept(counter)
}

// AddKey adds a key for the heartbeats with a peer, which need not have been set
// yet. The keysPerPeer used last are accepted. The latest that the other end is
// known to have is sent under: a dialer's at once, an acceptor's when a datagram
// under it has arrived.
func (t *Transport) AddKey(with cluster.NodeName, k Key) error {
	b, err := newBox(k)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.boxes[b.id] != nil {
		return errors.New("a key for heartbeats was added twice")
	}
	p := t.peers[with]
	if p == nil {
		if len(t.peers) >= maxPeers {
			return fmt.Errorf("heartbeat keys for more than %d nodes", maxPeers)
		}
		p = &peer{name: with}
		t.peers[with] = p
	}
	t.orders++
	b.order, b.peer = t.orders, p
	b.used.Store(t.clock.Add(1))
	t.boxes[b.id] = b
	p.boxes = append(p.boxes, b)
	if k.Dialer {
		t.confirm(b)
	} else {
		p.trial = b
	}
	t.evict(p)
	return nil
}

// confirm lets the key be sent under if it is the latest such. mu is held.
func (t *Transport) confirm(b *box) {
	p := b.peer
	b.confirmed.Store(true)
	if p.sending == nil || b.order > p.sending.order {
		p.sending = b
	}
	if p.trial != nil && p.trial.order <= b.order {
		p.trial = nil
	}
}

// evict drops the keys that were not used for longest. mu is held.
func (t *Transport) evict(p *peer) {
	for len(p.boxes) > keysPerPeer {
		at := -1
		for i, b := range p.boxes {
			if b != p.sending && b != p.trial && (at < 0 || b.used.Load() < p.boxes[at].used.Load()) {
				at = i
			}
		}
		delete(t.boxes, p.boxes[at].id)
		p.boxes = append(p.boxes[:at], p.boxes[at+1:]...)
	}
}
