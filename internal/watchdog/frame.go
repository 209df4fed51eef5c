package watchdog

import (
	"encoding/binary"
	"time"
)

// The daemon and the helper talk over a unix socket of whole packets. The
// daemon sends frames of frameSize bytes: the operation, three zero bytes, and
// for opFeed within how many milliseconds the next feed must come (big endian).
// The helper answers with one byte, and a sentence after ansReady and
// ansRefused.
const frameSize = 8

const (
	opFeed   = 'F'
	opDisarm = 'V' // the character that disarms the kernel's watchdogs

	ansReady    = 'R' // it listens; the sentence says what it could not get
	ansRefused  = 'E' // it cannot work; the sentence says why
	ansFed      = 'A' // one feed was taken
	ansDisarmed = 'D'
)

// maxAnswer bounds an answer, its sentence included.
const maxAnswer = 512

func encode(op byte, timeout time.Duration) [frameSize]byte {
	var f [frameSize]byte
	f[0] = op
	binary.BigEndian.PutUint32(f[4:], uint32(min(max(timeout, 0), longest).Milliseconds()))
	return f
}

// decode returns ok=false for what is not a frame of ours.
func decode(b []byte) (op byte, timeout time.Duration, ok bool) {
	if len(b) != frameSize || b[1]|b[2]|b[3] != 0 {
		return 0, 0, false
	}
	op, timeout = b[0], time.Duration(binary.BigEndian.Uint32(b[4:]))*time.Millisecond
	switch op {
	case opFeed:
		return op, timeout, timeout >= time.Millisecond && timeout <= longest
	case opDisarm:
		return op, 0, timeout == 0
	}
	return 0, 0, false
}
