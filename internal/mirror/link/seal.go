package link

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/tls"
	"encoding/binary"
	"fmt"
)

// What follows the handshake is sealed with keys that both sides take from it
// (the exporter of TLS 1.3, RFC 8446, section 7.5), one for each direction:
// AES-128-GCM, the nonce is the number of the seal in its direction. So a frame
// that is left out, repeated, moved or changed ends the connection, as it would in
// TLS; but a large frame is not cut into records of 16 KiB, and its content is
// decrypted where it is to be.
const (
	exportLabel = "EXPORTER-tasuki-mirror"
	keySize     = 16
	// Overhead is how many bytes longer than its content what is sealed is.
	Overhead = 16
	// piece is how much of a payload is sealed at once: few enough bytes to be
	// still in the processor's cache when they are written, or were read.
	piece = 256 << 10
	// wornAfter bytes one key should encrypt no more: 2^24.5 times 16 KiB, what TLS
	// allows AES-GCM (RFC 8446, section 5.5).
	wornAfter = 23_726_566 * 16 << 10
)

// direction seals or opens what goes one way.
type direction struct {
	aead  cipher.AEAD
	count uint64
	nonce [12]byte
}

// directions returns those of a connection as its two ends have agreed on them.
func directions(cs tls.ConnectionState, dialed bool) (out, in *direction, err error) {
	keys, err := cs.ExportKeyingMaterial(exportLabel, nil, 2*keySize)
	if err != nil {
		return nil, nil, fmt.Errorf("keys for what follows the handshake: %w", err)
	}
	var d [2]direction // of who dialed, of who listened
	for i := range d {
		block, err := aes.NewCipher(keys[i*keySize:][:keySize])
		if err != nil {
			return nil, nil, err
		}
		if d[i].aead, err = cipher.NewGCM(block); err != nil {
			return nil, nil, err
		}
	}
	if dialed {
		return &d[0], &d[1], nil
	}
	return &d[1], &d[0], nil
}

func (d *direction) next() []byte {
	binary.BigEndian.PutUint64(d.nonce[4:], d.count)
	d.count++
	return d.nonce[:]
}

// seal appends p, sealed, to dst.
func (d *direction) seal(dst, p []byte) []byte { return d.aead.Seal(dst, d.next(), p, nil) }

// open unseals b where it stands: what it says is Overhead bytes shorter.
func (d *direction) open(b []byte) error {
	if _, err := d.aead.Open(b[:0], d.next(), b, nil); err != nil {
		return fmt.Errorf("what came over the connection was changed on its way: %w", err)
	}
	return nil
}
