package link

import (
	"fmt"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// Zstd compresses payloads one by one, each by itself. It is for one goroutine.
type Zstd struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
	buf []byte
}

// NewZstd returns a compressor for payloads of at most limit bytes.
func NewZstd(limit int) (*Zstd, error) {
	window := max(zstd.MinWindowSize, 1<<bits.Len(uint(limit-1)))
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window), zstd.WithEncoderCRC(false)) // TLS and the copy's own checks see to that
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(window)),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, err
	}
	return &Zstd{enc: enc, dec: dec}, nil
}

// Compress returns p compressed, and true, if that makes it smaller by at least
// an eighth; else p itself and false. The result is good until the next call.
func (z *Zstd) Compress(p []byte) ([]byte, bool) {
	z.buf = z.enc.EncodeAll(p, z.buf[:0])
	if len(z.buf) > len(p)-len(p)/8 {
		return p, false
	}
	return z.buf, true
}

// Decompress fills into from what Compress made of it. Data that becomes more or
// less than that is an error, before anything more is allocated.
func (z *Zstd) Decompress(into, p []byte) error {
	out, err := z.dec.DecodeAll(p, into[:0:len(into)])
	if err == nil && len(out) != len(into) {
		err = fmt.Errorf("%d bytes where %d are expected", len(out), len(into))
	}
	if err != nil {
		return fmt.Errorf("decompress what the other copy sent: %w", err)
	}
	return nil
}

// Close gives back what it holds.
func (z *Zstd) Close() {
	_ = z.enc.Close()
	z.dec.Close()
}
