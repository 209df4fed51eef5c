package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/tasuki-ha/tasuki/internal/mirror/front"
)

// The magic numbers of the handshake.
const (
	helloMagic  = 0x4e42444d41474943 // NBDMAGIC
	optionMagic = 0x49484156454f5054 // IHAVEOPT
	answerMagic = 0x3e889045565a9
)

// The flags of the handshake, the same in both directions.
const (
	fixedNewstyle = 1 << 0
	noZeroes      = 1 << 1
)

// The options that are carried out.
const (
	optExportName = 1
	optAbort      = 2
	optList       = 3
	optInfo       = 6
	optGo         = 7
)

// The answers to an option.
const (
	ansAck     = 1
	ansServer  = 2 // one name of a list
	ansInfo    = 3
	ansUnsup   = 1<<31 + 1
	ansInvalid = 1<<31 + 3
	ansUnknown = 1<<31 + 6 // no such export
	ansTooBig  = 1<<31 + 9
)

// The kinds of information.
const (
	infoExport    = 0
	infoBlockSize = 3
)

// The flags of an export.
const (
	hasFlags        = 1 << 0
	sendFlush       = 1 << 2
	sendFUA         = 1 << 3
	sendTrim        = 1 << 5
	sendWriteZeroes = 1 << 6
	canMultiConn    = 1 << 8
)

// exportFlags is what every export can. A flush covers what was completed on any
// connection, because front.Flush does, so clients may use several.
const exportFlags = hasFlags | sendFlush | sendFUA | sendTrim | sendWriteZeroes | canMultiConn

// mostOption is how many bytes of an option are read. The longest that makes sense
// has a name, of at most 4096 bytes, and some kinds of information.
const mostOption = 8 << 10

// preferredBlock is the size from which on requests are efficient, in bytes.
const preferredBlock = 4096

// A handshake is what is agreed on before the transmission phase.
type handshake struct {
	rw     io.ReadWriter
	name   string
	dev    front.Device
	zeroes bool // the client wants 124 bytes of padding after an export
}

// run returns nil when the transmission phase follows, and errDisconnected if the
// client wants none.
func (h *handshake) run() error {
	hello := binary.BigEndian.AppendUint64(nil, helloMagic)
	hello = binary.BigEndian.AppendUint64(hello, optionMagic)
	hello = binary.BigEndian.AppendUint16(hello, fixedNewstyle|noZeroes)
	if _, err := h.rw.Write(hello); err != nil {
		return err
	}
	var b [4]byte
	if _, err := io.ReadFull(h.rw, b[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(b[:])
	if flags&^(fixedNewstyle|noZeroes) != 0 {
		return fmt.Errorf("the client has unknown flags: %#x", flags)
	}
	h.zeroes = flags&noZeroes == 0
	for {
		done, err := h.option()
		if err != nil || done {
			return err
		}
	}
}

// option reads and answers one option. done says that the transmission phase
// follows.
func (h *handshake) option() (done bool, err error) {
	var b [16]byte // magic (8), option (4), length (4)
	if _, err := io.ReadFull(h.rw, b[:]); err != nil {
		return false, err
	}
	option, length := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	if binary.BigEndian.Uint64(b[:]) != optionMagic {
		return false, errors.New("an option begins with the wrong magic")
	}
	if length > mostOption {
		_ = h.refuse(option, ansTooBig, "the option is too long")
		return false, fmt.Errorf("option %d has %d bytes, more than %d", option, length, mostOption)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(h.rw, data); err != nil {
		return false, err
	}
	switch option {
	case optExportName:
		return true, h.exportName(string(data))
	case optAbort:
		_ = h.answer(option, ansAck, nil) // the client need not wait for it
		return false, errDisconnected
	case optList:
		if length != 0 {
			return false, h.refuse(option, ansInvalid, "a list takes no data")
		}
		name := binary.BigEndian.AppendUint32(nil, uint32(len(h.name)))
		if err := h.answer(option, ansServer, append(name, h.name...)); err != nil {
			return false, err
		}
		return false, h.answer(option, ansAck, nil)
	case optInfo, optGo:
		known, err := h.info(option, data)
		return known && option == optGo, err
	}
	return false, h.refuse(option, ansUnsup, "the option is not supported")
}

// known says whether a client means this export; the empty name is the default.
func (h *handshake) known(name string) bool { return name == h.name || name == "" }

// exportName ends the handshake the old way, in which nothing can be refused.
func (h *handshake) exportName(name string) error {
	if !h.known(name) {
		return fmt.Errorf("there is no export %q", name)
	}
	b := h.export(nil)
	if h.zeroes {
		b = append(b, make([]byte, 124)...)
	}
	_, err := h.rw.Write(b)
	return err
}

// export appends what an export is: size (8), flags (2).
func (h *handshake) export(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(h.dev.Size()))
	return binary.BigEndian.AppendUint16(b, exportFlags)
}

// info answers INFO and GO: length of the name (4), name, number of wishes (2),
// wishes (2 each). It tells the block sizes whether they are wished for or not.
func (h *handshake) info(option uint32, data []byte) (known bool, err error) {
	name, ok := parseInfo(data)
	switch {
	case !ok:
		return false, h.refuse(option, ansInvalid, "the option is malformed")
	case !h.known(name):
		return false, h.refuse(option, ansUnknown, "there is no such export")
	}
	sizes := binary.BigEndian.AppendUint16(nil, infoBlockSize)
	for _, n := range []int{h.dev.SectorSize(), preferredBlock, MaxRequest} {
		sizes = binary.BigEndian.AppendUint32(sizes, uint32(n))
	}
	export := h.export(binary.BigEndian.AppendUint16(nil, infoExport))
	for _, info := range [][]byte{export, sizes} {
		if err := h.answer(option, ansInfo, info); err != nil {
			return false, err
		}
	}
	return true, h.answer(option, ansAck, nil)
}

// parseInfo returns the name in the data of INFO or GO, and false if the data is
// not what it should be.
func parseInfo(data []byte) (name string, ok bool) {
	if len(data) < 6 {
		return "", false
	}
	n := uint64(binary.BigEndian.Uint32(data))
	if n > uint64(len(data)-6) {
		return "", false
	}
	wishes := data[4+n:]
	return string(data[4 : 4+n]), len(wishes) == 2+2*int(binary.BigEndian.Uint16(wishes))
}

// refuse answers with an error; why is for people.
func (h *handshake) refuse(option, kind uint32, why string) error {
	return h.answer(option, kind, []byte(why))
}

func (h *handshake) answer(option, kind uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, answerMagic)
	for _, n := range []uint32{option, kind, uint32(len(data))} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	_, err := h.rw.Write(append(b, data...))
	return err
}
