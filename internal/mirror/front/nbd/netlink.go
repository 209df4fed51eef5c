package nbd

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
)

// What generic netlink calls things, from include/uapi/linux/nbd-netlink.h.
const (
	familyName = "nbd"

	cmdConnect      = 1
	cmdGiveUp       = 2 // NBD_CMD_DISCONNECT
	cmdReconfigure  = 3
	attrIndex       = 1
	attrSize        = 2
	attrBlockSize   = 3
	attrTimeout     = 4
	attrServerFlags = 5
	attrClientFlags = 6
	attrSockets     = 7
	attrDeadTimeout = 8
	attrBackend     = 10
	attrSocketItem  = 1 // in attrSockets
	attrSocketFD    = 1 // in attrSocketItem
)

// A family is the kernel's nbd, reached over generic netlink.
type family struct {
	conn *genetlink.Conn
	genetlink.Family
}

// Available returns nil if the kernel can make a block device of NBD, else why it
// cannot and what to do about it.
func Available() error {
	f, err := open()
	if err != nil {
		return err
	}
	return f.conn.Close()
}

func open() (*family, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("open generic netlink: %w", err)
	}
	return find(conn)
}

// find looks the family up; conn is closed if it is not there.
func find(conn *genetlink.Conn) (*family, error) {
	f, err := conn.GetFamily(familyName)
	if err == nil {
		return &family{conn, f}, nil
	}
	_ = conn.Close()
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("the kernel has no nbd, or this is not its first network namespace: modprobe nbd")
	}
	return nil, fmt.Errorf("ask the kernel for nbd: %w", err)
}

// A setting is what the kernel is told of a device. What is negative or empty is
// left out.
type setting struct {
	index    int // out: any free one
	size     int64
	dead     time.Duration // how long requests wait for another connection; in whole seconds
	socket   int           // out: leave it
	identity string
	block    int // what follows is told at the connecting only
}

func (s setting) encode(e *netlink.AttributeEncoder) {
	if s.index >= 0 {
		e.Uint32(attrIndex, uint32(s.index))
	}
	if s.size >= 0 {
		e.Uint64(attrSize, uint64(s.size))
	}
	if s.dead >= 0 {
		e.Uint64(attrDeadTimeout, uint64(s.dead/time.Second))
	}
	if s.identity != "" {
		e.String(attrBackend, s.identity)
	}
	if s.socket >= 0 {
		e.Nested(attrSockets, func(e *netlink.AttributeEncoder) error {
			e.Nested(attrSocketItem, func(e *netlink.AttributeEncoder) error {
				e.Uint32(attrSocketFD, uint32(s.socket))
				return nil
			})
			return nil
		})
	}
	if s.block > 0 {
		e.Uint64(attrBlockSize, uint64(s.block))
		e.Uint64(attrTimeout, 0) // see Attach
		e.Uint64(attrServerFlags, exportFlags)
		e.Uint64(attrClientFlags, 0) // the device stays when it is closed, and when it is disconnected
	}
}

// connect makes a block device and returns its number.
func (f *family) connect(s setting) (index int, err error) {
	replies, err := f.do(cmdConnect, s, netlink.Request)
	if err != nil {
		return 0, err
	}
	index = -1
	for _, r := range replies {
		d, err := netlink.NewAttributeDecoder(r.Data)
		if err != nil {
			return 0, err
		}
		for d.Next() {
			if d.Type() == attrIndex {
				index = int(d.Uint32())
			}
		}
		if err := d.Err(); err != nil {
			return 0, err
		}
	}
	if index < 0 {
		return 0, errors.New("the kernel does not say which device it made")
	}
	return index, nil
}

// reconfigure changes a block device. A socket takes the place of one that is
// dead; if none is, the kernel drops it and says nothing.
func (f *family) reconfigure(s setting) error {
	_, err := f.do(cmdReconfigure, s, netlink.Request|netlink.Acknowledge)
	return err
}

// disconnect ends a block device. Requests under way fail; who has it open keeps
// a device of which every request fails.
func (f *family) disconnect(index int) error {
	_, err := f.do(cmdGiveUp, only(index), netlink.Request|netlink.Acknowledge)
	return err
}

// only is a setting that names a device and changes nothing.
func only(index int) setting { return setting{index: index, size: -1, dead: -1, socket: -1} }

func (f *family) do(command uint8, s setting, flags netlink.HeaderFlags) ([]genetlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	s.encode(e)
	b, err := e.Encode()
	if err != nil {
		return nil, err
	}
	m := genetlink.Message{Header: genetlink.Header{Command: command, Version: f.Version}, Data: b}
	return f.conn.Execute(m, f.ID, flags)
}
