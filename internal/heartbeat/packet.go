package heartbeat

import (
	"crypto/rand"
	"encoding/binary"
)

const (
	// MaxPayload is how many bytes one datagram carries at most.
	MaxPayload = 1200

	headerSize = 24
	tagSize    = 16
	maxPacket  = headerSize + MaxPayload + tagSize
	magic      = 'T'<<24 | 'k'<<16 | 'H'<<8 | 1
)

type header struct {
	key     uint64
	counter uint64
}

// parseHeader reads what stands in the clear. It says no to what has not the
// size or the beginning of a datagram of ours.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerSize+tagSize || len(b) > maxPacket || binary.BigEndian.Uint32(b) != magic {
		return h, false
	}
	return header{binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint64(b[16:])}, true
}

// sealTo appends to dst, which is empty, the datagram for payload.
func (b *box) sealTo(dst, payload []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, magic)
	dst = binary.BigEndian.AppendUint64(dst, b.id)
	dst = append(dst, 0, 0, 0, 0)
	_, _ = rand.Read(dst[12:16]) // never fails
	dst = binary.BigEndian.AppendUint64(dst, b.count.Add(1))
	return b.seal.Seal(dst, dst[12:headerSize], payload, dst)
}

// openIn opens a datagram in place.
func (b *box) openIn(packet []byte) ([]byte, error) {
	sealed := packet[headerSize:]
	return b.open.Open(sealed[:0], packet[12:headerSize], sealed, packet[:headerSize])
}
